// The parameters of one RPC call as a client's form carries them, in the query, in the body or
// in both. Runs in the gateway on the connection's strand; knows no action and no JSON.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "sandbox/sys/result.h"

namespace codespace::api {

inline constexpr std::size_t kMaxFormFields = 256;  // the largest known call has about twenty

class RpcParameters {
 public:
  /// Adds `a=b&c=d`. Called for the query first and then for the body; of a name that is in
  /// both the body's value counts. An empty value is the same as none, since some clients send
  /// every optional field.
  Result<void> add(std::string_view form);

  /// Empty if the client did not send it.
  [[nodiscard]] const std::string& text(const std::string& name) const;
  /// Nothing if absent. Takes true and false in any case: clients differ.
  [[nodiscard]] Result<std::optional<bool>> flag(const std::string& name) const;
  /// Nothing if absent.
  [[nodiscard]] Result<std::optional<std::uint32_t>> number(const std::string& name) const;
  /// The key of `Authorization`, without its `Bearer `; empty if there is none.
  [[nodiscard]] std::string_view key() const;

 private:
  std::map<std::string, std::string> values_;
};

}  // namespace codespace::api
