// Files: requests to init, which does the work inside the session as the session's user. No
// path is ever resolved here. Streams are flat in memory: one piece at a time, both ways.
#include <algorithm>

#include "sandbox/manager/impl.h"
#include "sandbox/manager/validation.h"

namespace codespace::manager {

using namespace std::chrono_literals;

namespace {

// For each step of a transfer, not for the whole: a large file may take its time.
constexpr auto kStepPatience = 30s;
constexpr std::uint32_t kMaxDepth = 64;
constexpr std::uint32_t kMaxEntries = 10'000;
constexpr std::size_t kMaxListingBytes = 8U << 20;
constexpr std::size_t kMaxPatterns = 64;
constexpr std::size_t kMaxPatternBytes = 4096;

TimePoint step_limit() { return std::chrono::steady_clock::now() + kStepPatience; }

std::vector<char> frame_of(const wire::Writer& writer, wire::InitRequest type) {
  return writer.frame(static_cast<std::uint32_t>(type));
}

std::optional<FileEntry> decode_entry(std::span<const char> payload) {
  wire::Reader reader(payload);
  FileEntry entry;
  entry.name = reader.bytes();
  const std::uint8_t kind = reader.u8();
  entry.size = reader.u64();
  entry.mode = reader.u32();
  entry.uid = reader.u32();
  entry.gid = reader.u32();
  entry.mtime_ns = reader.i64();
  entry.ctime_ns = reader.i64();
  entry.atime_ns = reader.i64();
  entry.btime_ns = reader.i64();
  entry.inode = reader.u64();
  entry.link_target = reader.bytes();
  if (!reader.done() || kind < static_cast<std::uint8_t>(wire::FileKind::regular) ||
      kind > static_cast<std::uint8_t>(wire::FileKind::other))
    return std::nullopt;
  entry.kind = static_cast<wire::FileKind>(kind);
  return entry;
}

struct FileDone {
  std::uint64_t bytes = 0;
  std::uint64_t size = 0;
  bool truncated = false;
};

std::optional<FileDone> decode_file_done(std::span<const char> payload) {
  wire::Reader reader(payload);
  FileDone done;
  done.bytes = reader.u64();
  done.size = reader.u64();
  (void)reader.i64();
  done.truncated = reader.u8() != 0;
  if (!reader.done()) return std::nullopt;
  return done;
}

}  // namespace

/// One file transfer: the connection, the use of the session, and how its end is explained.
/// Must not outlive the manager.
class FileLink {
 public:
  FileLink(SessionManager::Impl& manager, Use use, std::unique_ptr<InitConnection> link, Asked asked,
           const char* what)
      : manager_(manager),
        use_(std::move(use)),
        link_(std::move(link)),
        asked_(std::move(asked)),
        what_(what) {}

  /// The next frame that is not a refusal.
  Task<Frame> next() {
    link_->limit(step_limit());
    const auto frame = co_await link_->next();
    if (!frame) co_return std::unexpected(co_await explain(frame.error()));
    if (frame->type != wire::InitReply::refused) co_return *frame;
    const auto refused = decode_refused(frame->payload);
    if (!refused) co_return std::unexpected(co_await explain(LinkFault::malformed));
    co_return std::unexpected(explain_refusal(*refused, asked_));
  }

  /// `closed` is no error yet: init said why before it closed, and next() reads it.
  boost::asio::awaitable<LinkFault> send(std::vector<char> frame) {
    link_->limit(step_limit());
    return link_->send(std::move(frame));
  }

  boost::asio::awaitable<Error> explain(LinkFault fault) {
    return manager_.explain_loss(use_.session(), fault, what_, link_->heard());
  }

 private:
  SessionManager::Impl& manager_;
  Use use_;
  std::unique_ptr<InitConnection> link_;
  Asked asked_;
  const char* what_;
};

namespace {

class InitFileReader final : public FileReader {
 public:
  InitFileReader(FileLink link, FileEntry entry) : link_(std::move(link)), entry_(std::move(entry)) {}
  [[nodiscard]] const FileEntry& entry() const override { return entry_; }

  Task<std::string> next() override {
    if (finished_) co_return std::string();
    const auto frame = co_await link_.next();
    if (!frame) co_return std::unexpected(frame.error());
    if (frame->type == wire::InitReply::data && !frame->payload.empty())
      co_return std::string(frame->payload.data(), frame->payload.size());
    if (frame->type != wire::InitReply::file_done || !decode_file_done(frame->payload))
      co_return std::unexpected(co_await link_.explain(LinkFault::malformed));
    finished_ = true;
    co_return std::string();
  }

 private:
  FileLink link_;
  FileEntry entry_;
  bool finished_ = false;
};

class InitFileWriter final : public FileWriter {
 public:
  explicit InitFileWriter(FileLink link) : link_(std::move(link)) {}

  Task<void> write(std::string piece) override {
    for (std::size_t at = 0; at < piece.size(); at += wire::kMaxChunk) {
      wire::Writer writer;
      writer.raw(std::string_view(piece).substr(at, wire::kMaxChunk));
      const LinkFault fault = co_await link_.send(writer.frame(wire::kInData));
      if (fault == LinkFault::none) continue;
      if (fault != LinkFault::closed) co_return std::unexpected(co_await link_.explain(fault));
      co_return std::unexpected(co_await why_closed());
    }
    co_return Result<void>{};
  }

  Task<FileWritten> finish() override {
    (void)co_await link_.send(wire::Writer().frame(wire::kInEndOfData));
    const auto frame = co_await link_.next();
    if (!frame) co_return std::unexpected(frame.error());
    const auto done =
        frame->type == wire::InitReply::file_done ? decode_file_done(frame->payload) : std::nullopt;
    if (!done) co_return std::unexpected(co_await link_.explain(LinkFault::malformed));
    co_return FileWritten{done->bytes, done->size};
  }

 private:
  /// init stops reading when it has refused; its reason waits in the socket.
  boost::asio::awaitable<Error> why_closed() {
    const auto frame = co_await link_.next();
    if (!frame) co_return frame.error();
    co_return co_await link_.explain(LinkFault::malformed);
  }

  FileLink link_;
};

}  // namespace

namespace {

/// Entries until the closing frame.
Task<FileListing> take_listing(FileLink link) {
  FileListing listing;
  std::size_t bytes = 0;
  for (;;) {
    const auto frame = co_await link.next();
    if (!frame) co_return std::unexpected(frame.error());
    if (frame->type == wire::InitReply::file_done) {
      const auto done = decode_file_done(frame->payload);
      if (!done) co_return std::unexpected(co_await link.explain(LinkFault::malformed));
      listing.truncated = done->truncated;
      co_return listing;
    }
    auto entry = frame->type == wire::InitReply::entry ? decode_entry(frame->payload) : std::nullopt;
    if (!entry) co_return std::unexpected(co_await link.explain(LinkFault::malformed));
    bytes += sizeof(FileEntry) + entry->name.size() + entry->link_target.size();
    if (listing.entries.size() >= kMaxEntries || bytes > kMaxListingBytes) {
      listing.truncated = true;
      co_return listing;
    }
    listing.entries.push_back(std::move(*entry));
  }
}

}  // namespace

// --- the calls ------------------------------------------------------------------------------------

Task<FileLink> SessionManager::Impl::open_file_link(std::string owner, std::string session_id,
                                                    std::vector<char> request, Asked asked,
                                                    const char* what) {
  auto use = co_await this->use(std::move(owner), std::move(session_id));
  if (!use) co_return std::unexpected(use.error());
  auto link = co_await connect(use->session(), std::move(request), step_limit(), what);
  if (!link) co_return std::unexpected(link.error());
  co_return FileLink(*this, std::move(*use), std::move(*link), std::move(asked), what);
}

Task<std::unique_ptr<FileReader>> SessionManager::Impl::read_file(std::string owner, std::string session_id,
                                                                  std::string path, FileRange range) {
  if (auto ok = check_path(path, "path"); !ok) co_return std::unexpected(ok.error());
  wire::Writer writer;
  writer.bytes(path);
  writer.u64(range.offset);
  writer.u64(range.length);
  Asked asked;
  asked.path = std::move(path);
  auto link =
      co_await open_file_link(std::move(owner), std::move(session_id),
                              frame_of(writer, wire::InitRequest::file_read), std::move(asked), "read file");
  if (!link) co_return std::unexpected(link.error());
  const auto frame = co_await link->next();
  if (!frame) co_return std::unexpected(frame.error());
  auto entry = frame->type == wire::InitReply::entry ? decode_entry(frame->payload) : std::nullopt;
  if (!entry) co_return std::unexpected(co_await link->explain(LinkFault::malformed));
  std::unique_ptr<FileReader> reader = std::make_unique<InitFileReader>(std::move(*link), std::move(*entry));
  co_return reader;
}

Task<std::unique_ptr<FileWriter>> SessionManager::Impl::write_file(std::string owner, std::string session_id,
                                                                   std::string path,
                                                                   FileWriteOptions options) {
  if (auto ok = check_path(path, "path"); !ok) co_return std::unexpected(ok.error());
  if ((options.mode & ~07777U) != 0)
    co_return client_error(ErrorCode::invalid_request,
                           "`mode` has bits beyond 07777; give permission bits only");
  const std::uint32_t flags = (options.append ? wire::file_write_append : 0U) |
                              (options.exclusive ? wire::file_write_exclusive : 0U) |
                              (options.create_parents ? wire::file_write_parents : 0U);
  wire::Writer writer;
  writer.bytes(path);
  writer.u32(flags);
  writer.u32(options.mode);
  writer.u64(config_.max_file_bytes);
  Asked asked;
  asked.path = std::move(path);
  asked.size_limit = config_.max_file_bytes;
  auto link = co_await open_file_link(std::move(owner), std::move(session_id),
                                      frame_of(writer, wire::InitRequest::file_write), std::move(asked),
                                      "write file");
  if (!link) co_return std::unexpected(link.error());
  std::unique_ptr<FileWriter> file = std::make_unique<InitFileWriter>(std::move(*link));
  co_return file;
}

Task<FileEntry> SessionManager::Impl::stat(std::string owner, std::string session_id, std::string path) {
  if (auto ok = check_path(path, "path"); !ok) co_return std::unexpected(ok.error());
  wire::Writer writer;
  writer.bytes(path);
  writer.u32(1);
  Asked asked;
  asked.path = std::move(path);
  auto link =
      co_await open_file_link(std::move(owner), std::move(session_id),
                              frame_of(writer, wire::InitRequest::file_stat), std::move(asked), "stat");
  if (!link) co_return std::unexpected(link.error());
  const auto frame = co_await link->next();
  if (!frame) co_return std::unexpected(frame.error());
  auto entry = frame->type == wire::InitReply::entry ? decode_entry(frame->payload) : std::nullopt;
  if (!entry) co_return std::unexpected(co_await link->explain(LinkFault::malformed));
  co_return std::move(*entry);
}

Task<FileListing> SessionManager::Impl::list_files(std::string owner, std::string session_id,
                                                   std::string path, std::uint32_t depth) {
  if (auto ok = check_path(path, "path"); !ok) co_return std::unexpected(ok.error());
  if (depth == 0 || depth > kMaxDepth)
    co_return client_error(ErrorCode::invalid_request, "`depth` is " + std::to_string(depth) +
                                                           "; allowed are 1 to " + std::to_string(kMaxDepth));
  wire::Writer writer;
  writer.bytes(path);
  writer.u32(depth);
  writer.u32(kMaxEntries);
  Asked asked;
  asked.path = std::move(path);
  auto link =
      co_await open_file_link(std::move(owner), std::move(session_id),
                              frame_of(writer, wire::InitRequest::file_list), std::move(asked), "list files");
  if (!link) co_return std::unexpected(link.error());
  co_return co_await take_listing(std::move(*link));
}

Task<FileListing> SessionManager::Impl::search_files(std::string owner, std::string session_id, std::string path,
                                                     std::string pattern, std::vector<std::string> excluded) {
  if (auto ok = check_path(path, "path"); !ok) co_return std::unexpected(ok.error());
  if (excluded.size() > kMaxPatterns)
    co_return client_error(ErrorCode::invalid_request, "there are " + std::to_string(excluded.size()) +
                                                           " patterns to leave out; allowed are at most " + std::to_string(kMaxPatterns));
  for (const std::string& text : excluded) {
    if (text.size() > kMaxPatternBytes) pattern = text;  // the check below refuses it
  }
  if (pattern.size() > kMaxPatternBytes)
    co_return client_error(ErrorCode::invalid_request, "a pattern has " + std::to_string(pattern.size()) +
                                                           " bytes; allowed are at most " + std::to_string(kMaxPatternBytes));
  wire::Writer writer;
  writer.bytes(path);
  writer.bytes(pattern);
  writer.u32(static_cast<std::uint32_t>(excluded.size()));
  for (const std::string& text : excluded) writer.bytes(text);
  writer.u32(kMaxEntries);
  Asked asked;
  asked.path = std::move(path);
  auto link =
      co_await open_file_link(std::move(owner), std::move(session_id),
                              frame_of(writer, wire::InitRequest::file_search), std::move(asked), "search files");
  if (!link) co_return std::unexpected(link.error());
  co_return co_await take_listing(std::move(*link));
}

Task<void> SessionManager::Impl::simple_file_work(std::string owner, std::string session_id,
                                                  std::vector<char> request, std::string path) {
  if (auto ok = check_path(path, "path"); !ok) co_return std::unexpected(ok.error());
  Asked asked;
  asked.path = std::move(path);
  auto link = co_await open_file_link(std::move(owner), std::move(session_id), std::move(request),
                                      std::move(asked), "file work");
  if (!link) co_return std::unexpected(link.error());
  const auto frame = co_await link->next();
  if (!frame) co_return std::unexpected(frame.error());
  if (frame->type != wire::InitReply::file_done)
    co_return std::unexpected(co_await link->explain(LinkFault::malformed));
  co_return Result<void>{};
}

Task<void> SessionManager::make_directory(std::string owner, std::string session_id, std::string path,
                                          bool parents) {
  wire::Writer writer;
  writer.bytes(path);
  writer.u32(parents ? 1 : 0);
  return impl_->simple_file_work(std::move(owner), std::move(session_id),
                                 frame_of(writer, wire::InitRequest::file_mkdir), std::move(path));
}

Task<void> SessionManager::move(std::string owner, std::string session_id, std::string from, std::string to,
                                bool overwrite) {
  if (auto ok = check_path(to, "to"); !ok) co_return std::unexpected(ok.error());
  wire::Writer writer;
  writer.bytes(from);
  writer.bytes(to);
  writer.u32(overwrite ? 1 : 0);
  co_return co_await impl_->simple_file_work(std::move(owner), std::move(session_id),
                                             frame_of(writer, wire::InitRequest::file_move), std::move(from));
}

Task<void> SessionManager::remove_file(std::string owner, std::string session_id, std::string path,
                                       RemoveScope scope) {
  wire::Writer writer;
  writer.bytes(path);
  writer.u32((scope == RemoveScope::tree ? wire::file_remove_recursive : 0U) |
             (scope == RemoveScope::file ? wire::file_remove_file_only : 0U));
  return impl_->simple_file_work(std::move(owner), std::move(session_id),
                                 frame_of(writer, wire::InitRequest::file_remove), std::move(path));
}

}  // namespace codespace::manager
