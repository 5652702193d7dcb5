// Shell completions, made of the command line's own description, so that they cannot disagree.
#pragma once

#include <string>
#include <string_view>

namespace CLI {
class App;
}

namespace codespace::server {

/// For `bash`, `zsh` or `fish`: subcommands, their options, and file names where an option takes one.
std::string completion_script(CLI::App& app, std::string_view shell);

}  // namespace codespace::server
