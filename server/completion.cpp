// See completion.h. https://www.gnu.org/software/bash/manual/html_node/Programmable-Completion.html,
// https://fishshell.com/docs/3.6/cmds/complete.html
#include "server/completion.h"

#include <CLI/CLI.hpp>
#include <functional>
#include <sstream>

namespace codespace::server {
namespace {

constexpr std::string_view kProgram = "codespaced";

/// Calls `visit` for each command with the words that lead to it: "", "key", "key create".
void each_command(CLI::App& app, const std::string& path, const std::function<void(CLI::App&, const std::string&)>& visit) {
  visit(app, path);
  for (CLI::App* sub : app.get_subcommands([](CLI::App*) { return true; }))
    each_command(*sub, path.empty() ? sub->get_name() : path + " " + sub->get_name(), visit);
}

std::vector<const CLI::Option*> options_of(CLI::App& app) {
  std::vector<const CLI::Option*> named;
  for (const CLI::Option* option : app.get_options()) {
    if (!option->get_lnames().empty()) named.push_back(option);
  }
  return named;
}

std::string words_after(CLI::App& app) {
  std::string words;
  for (const CLI::App* sub : app.get_subcommands([](CLI::App*) { return true; })) words += sub->get_name() + " ";
  for (const CLI::Option* option : options_of(app)) words += "--" + option->get_lnames().front() + " ";
  if (app.get_name() == "completion") words += "bash zsh fish ";
  if (!words.empty()) words.pop_back();
  return words;
}

std::string bash(CLI::App& app) {
  std::ostringstream out;
  out << "# Completions of " << kProgram << ", made by `" << kProgram << " completion bash`.\n_" << kProgram << "() {\n"
      << "  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} path= word\n"
      << "  for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n    case \"$path $word\" in\n";
  each_command(app, "", [&](CLI::App&, const std::string& path) {
    if (path.empty()) return;
    const std::size_t last = path.rfind(' ');
    out << "      \"" << (last == std::string::npos ? "" : path.substr(0, last)) << " " << path.substr(last == std::string::npos ? 0 : last + 1) << "\") path=\"" << path << "\" ;;\n";
  });
  out << "    esac\n  done\n  case $previous in\n    --config|--state|--runtime|--images|backup|restore) COMPREPLY=($(compgen -f -- \"$current\")); return ;;\n  esac\n"
      << "  case $path in\n";
  each_command(app, "", [&](CLI::App& command, const std::string& path) {
    out << "    \"" << path << "\") COMPREPLY=($(compgen -W \"" << words_after(command) << "\" -- \"$current\")) ;;\n";
  });
  out << "  esac\n}\ncomplete -o filenames -F _" << kProgram << " " << kProgram << "\n";
  return out.str();
}

std::string escaped(std::string text) {
  for (std::size_t at = 0; (at = text.find_first_of("'\\", at)) != std::string::npos; at += 2) text.insert(at, 1, '\\');
  return text;
}

std::string fish(CLI::App& app) {
  std::ostringstream out;
  out << "# Completions of " << kProgram << ", made by `" << kProgram << " completion fish`.\ncomplete -c " << kProgram << " -f\n";
  each_command(app, "", [&](CLI::App& command, const std::string& path) {
    std::string seen;
    if (!path.empty()) seen = "; and __fish_seen_subcommand_from " + path.substr(path.rfind(' ') == std::string::npos ? 0 : path.rfind(' ') + 1);
    const std::string none = path.empty() ? "__fish_use_subcommand" : "true" + seen;
    for (CLI::App* sub : command.get_subcommands([](CLI::App*) { return true; }))
      out << "complete -c " << kProgram << " -n '" << none << "' -a " << sub->get_name() << " -d '" << escaped(sub->get_description()) << "'\n";
    for (const CLI::Option* option : options_of(command)) {
      const bool takes_value = option->get_type_size() != 0;
      out << "complete -c " << kProgram << " -n '" << none << "' -l " << option->get_lnames().front() << (takes_value ? " -r -F" : "") << " -d '"
          << escaped(option->get_description()) << "'\n";
    }
    if (command.get_name() == "completion") out << "complete -c " << kProgram << " -n '" << none << "' -a 'bash zsh fish'\n";
  });
  return out.str();
}

}  // namespace

std::string completion_script(CLI::App& app, std::string_view shell) {
  if (shell == "fish") return fish(app);
  // zsh has a layer for functions of bash.
  if (shell == "zsh") return "#compdef codespaced\nautoload -U +X bashcompinit && bashcompinit\n" + bash(app);
  return bash(app);
}

}  // namespace codespace::server
