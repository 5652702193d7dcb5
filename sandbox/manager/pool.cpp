// See pool.h.
#include "sandbox/manager/pool.h"

#include <algorithm>

namespace codespace::manager {
namespace {

using wire::Flavour;

constexpr std::chrono::seconds kDemandWindow{10};
/// More creations than this in the window say no more than that there are many.
constexpr std::size_t kMostRemembered = 256;
/// The launcher keeps this many kinds; the last of ours that were asked for are dropped.
constexpr std::size_t kMostKinds = wire::kMaxPools - 3;
constexpr std::size_t kMostOwners = 4096;

bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

}  // namespace

void PoolPolicy::count(std::uint64_t image, Flavour flavour, bool javascript, wire::Origin origin, Time now) {
  if (static_cast<std::size_t>(origin) < std::size(created_)) ++created_[static_cast<std::size_t>(origin)];
  const Kind kind{image, flavour, javascript};
  if (!asked_.contains(kind) && asked_.size() >= kMostKinds) return;
  auto& times = asked_[kind];
  times.push_back(now);
  if (times.size() > kMostRemembered) times.pop_front();
}

bool PoolPolicy::expects_javascript(const std::string& owner, bool known) const {
  return config_.javascript > 0 && (known || javascript_.contains(owner));
}

void PoolPolicy::begin_session(const std::string& owner) {
  const auto found = javascript_.find(owner);
  if (found == javascript_.end()) return;
  found->second = static_cast<std::uint8_t>(found->second << 1);
  if (found->second == 0) javascript_.erase(found);
}

void PoolPolicy::saw_javascript(const std::string& owner) {
  if (javascript_.size() >= kMostOwners && !javascript_.contains(owner)) return;
  javascript_[owner] |= 1;
}

std::vector<PoolTarget> PoolPolicy::targets(std::uint64_t default_image, bool zygotes, Time now) {
  std::map<Kind, std::uint32_t> wanted;
  if (default_image != 0) {
    const Flavour usual = zygotes ? Flavour::min : Flavour::none;
    wanted[{default_image, usual, false}] = config_.size;
    if (config_.size > 0) wanted[{default_image, usual, true}] = config_.javascript;
    // Said even if none is kept ready: the launcher has the zygote up before it is needed.
    if (zygotes) wanted[{default_image, Flavour::data, false}] = config_.data;
  }
  for (auto it = asked_.begin(); it != asked_.end();) {
    auto& times = it->second;
    while (!times.empty() && now - times.front() > kDemandWindow) times.pop_front();
    if (times.empty()) {
      it = asked_.erase(it);
      continue;
    }
    // A pool that is off stays off.
    if (config_.size > 0) {
      auto& count = wanted[it->first];
      count = std::max(count, std::min(static_cast<std::uint32_t>(times.size()), config_.most));
    }
    ++it;
  }
  std::vector<PoolTarget> targets;
  std::uint64_t left = config_.memory_bytes;
  for (auto& [kind, count] : wanted) {
    const auto& [image, flavour, javascript] = kind;
    const std::uint64_t each = (flavour == Flavour::data ? kReadyDataBytes : kReadyMinBytes) + (javascript ? kReadyJavascriptBytes : 0);
    const auto fits = static_cast<std::uint32_t>(std::min<std::uint64_t>(count, left / each));
    left -= fits * each;
    targets.push_back({image, flavour, javascript, fits});
  }
  return targets;
}

std::vector<PoolTarget> changes(const std::vector<PoolTarget>& told, const std::vector<PoolTarget>& wanted) {
  std::vector<PoolTarget> say;
  const auto same_kind = [](const PoolTarget& a) {
    return [&a](const PoolTarget& b) { return a.image == b.image && a.flavour == b.flavour && a.javascript == b.javascript; };
  };
  for (const PoolTarget& old : told) {
    if (std::none_of(wanted.begin(), wanted.end(), same_kind(old))) say.push_back({old.image, old.flavour, old.javascript, 0});
  }
  for (const PoolTarget& target : wanted) {
    if (std::find(told.begin(), told.end(), target) == told.end()) say.push_back(target);
  }
  return say;
}

bool wants_libraries(std::string_view code) {
  static constexpr std::string_view kLibraries[] = {"numpy", "pandas", "matplotlib", "IPython"};
  while (!code.empty()) {
    const std::size_t end = code.find('\n');
    std::string_view line = code.substr(0, end);
    code = end == std::string_view::npos ? std::string_view{} : code.substr(end + 1);
    const std::size_t begin = line.find_first_not_of(" \t");
    if (begin == std::string_view::npos) continue;
    line = line.substr(begin);
    if (line[0] == '%' || line[0] == '!') return true;
    std::string_view rest;
    for (const std::string_view word : {std::string_view("import "), std::string_view("from ")}) {
      if (line.starts_with(word)) rest = line.substr(word.size());
    }
    // `import os, numpy as np` counts too: each name that begins a word.
    for (std::size_t at = 0; at < rest.size(); ++at) {
      if (at > 0 && (is_word(rest[at - 1]) || rest[at - 1] == '.')) continue;
      for (const std::string_view library : kLibraries) {
        const std::string_view found = rest.substr(at);
        if (found.starts_with(library) && (found.size() == library.size() || !is_word(found[library.size()]))) return true;
      }
      if (line.starts_with("from ")) break;  // what is imported from elsewhere may have any name
    }
  }
  return false;
}

const char* name_of(wire::Origin origin) {
  switch (origin) {
    case wire::Origin::cold: return "cold";
    case wire::Origin::zygote: return "zygote";
    case wire::Origin::pool: return "pool";
  }
  return "unknown";
}

}  // namespace codespace::manager
