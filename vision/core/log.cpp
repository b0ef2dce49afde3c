#include "vision/core/log.h"

#include <atomic>
#include <cstdio>
#include <mutex>
#include <optional>

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

namespace vireo {
namespace {

spdlog::logger& logger() {
  static const std::shared_ptr<spdlog::logger> instance = [] {
    auto made = spdlog::stderr_color_mt("vireo");
    made->set_pattern("%^%l:%$ %v");
    return made;
  }();
  return *instance;
}

std::atomic<bool> bar_in_last_line = false;

void wipe_bar() {
  if (bar_in_last_line.exchange(false)) std::fputs("\r\x1b[K", stderr);
}

std::mutex warnings_mutex;
std::optional<std::vector<std::string>> kept_warnings;

}  // namespace

void log_info(const std::string& message) {
  if (log_quiet()) return;
  wipe_bar();
  logger().info("{}", message);
}
void log_warning(const std::string& message) {
  {
    const std::lock_guard lock(warnings_mutex);
    if (kept_warnings) kept_warnings->push_back(message);
  }
  wipe_bar();
  logger().warn("{}", message);
}
void log_error(const std::string& message) {
  wipe_bar();
  logger().error("{}", message);
}

WarningsKept::WarningsKept() {
  const std::lock_guard lock(warnings_mutex);
  kept_warnings.emplace();
}
WarningsKept::~WarningsKept() {
  const std::lock_guard lock(warnings_mutex);
  kept_warnings.reset();
}
std::vector<std::string> WarningsKept::warnings() const {
  const std::lock_guard lock(warnings_mutex);
  return *kept_warnings;
}

void set_bar_in_last_line(bool bar) {
  bar_in_last_line = bar;
}

void set_log_quiet(bool quiet) {
  logger().set_level(quiet ? spdlog::level::warn : spdlog::level::info);
}

bool log_quiet() {
  return logger().level() > spdlog::level::info;
}

}  // namespace vireo
