#pragma once

#include <string>
#include <vector>

// Messages for the person at the terminal, on stderr. Results belong on stdout, metrics in files.
// (spdlog stays behind this header: its fmt and the fmt that LibTorch ships do not go together.)
namespace vireo {

void log_info(const std::string& message);
void log_warning(const std::string& message);
void log_error(const std::string& message);

/// Keeps the warnings that are logged while it lives, by whatever thread; one at a time.
class WarningsKept {
 public:
  WarningsKept();
  ~WarningsKept();
  WarningsKept(const WarningsKept&) = delete;
  WarningsKept& operator=(const WarningsKept&) = delete;

  std::vector<std::string> warnings() const;
};

/// Tells that the terminal's last line is a bar, which the next message wipes out first.
void set_bar_in_last_line(bool bar);

/// --quiet keeps warnings and errors only.
void set_log_quiet(bool quiet);
bool log_quiet();

}  // namespace vireo
