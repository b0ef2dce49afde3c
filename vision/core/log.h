#pragma once

#include <string>

// Messages for the person at the terminal, on stderr. Results belong on stdout, metrics in files.
// (spdlog stays behind this header: its fmt and the fmt that LibTorch ships do not go together.)
namespace vireo {

void log_info(const std::string& message);
void log_warning(const std::string& message);
void log_error(const std::string& message);

/// --quiet keeps warnings and errors only.
void set_log_quiet(bool quiet);
bool log_quiet();

}  // namespace vireo
