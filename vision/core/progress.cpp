#include "vision/core/progress.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <mutex>

#include <sys/ioctl.h>
#include <unistd.h>

#include "vision/core/log.h"

namespace vireo {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kBarSeconds = 0.1;   // between redraws on a terminal
constexpr double kLineSeconds = 5.0;  // between lines elsewhere
constexpr int kBarWidth = 24;

int terminal_columns() {
  winsize size{};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 100;
}

std::string rate_text(double per_second) {
  char text[32];
  if (per_second >= 1 || per_second <= 0)
    std::snprintf(text, sizeof text, "%.1f/s", per_second);
  else
    std::snprintf(text, sizeof text, "%.1f s each", 1 / per_second);
  return text;
}

}  // namespace

struct Progress::State {
  std::string title, message;
  int64_t total = 0, done = 0;
  bool terminal = false, quiet = false, finished = false;
  Clock::time_point begin = Clock::now(), shown = Clock::now();
  std::mutex mutex;

  double seconds() const { return std::chrono::duration<double>(Clock::now() - begin).count(); }

  std::string line() const {
    const double elapsed = seconds();
    const double rate = elapsed > 0 ? static_cast<double>(done) / elapsed : 0;
    std::string text = title + " ";
    if (total > 0) {
      const double part = std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
      if (terminal) {
        const int filled = static_cast<int>(std::lround(part * kBarWidth));
        text += "[" + std::string(filled, '#') + std::string(kBarWidth - filled, '.') + "] ";
      }
      text += std::to_string(done) + "/" + std::to_string(total);
    } else {
      text += std::to_string(done);
    }
    text += "  " + rate_text(rate);
    if (finished || total == 0)
      text += "  " + duration_text(elapsed);
    else if (done > 0)
      text += "  " + duration_text(static_cast<double>(total - done) / rate) + " left";
    return message.empty() ? text : text + "  " + message;
  }

  void show() {
    if (quiet) return;
    shown = Clock::now();
    std::string text = line();
    if (terminal) {
      text.resize(std::min<size_t>(text.size(), static_cast<size_t>(terminal_columns() - 1)));
      text = "\r\x1b[K" + text;
    }
    if (!terminal || finished) text += "\n";
    std::fputs(text.c_str(), stderr);
    std::fflush(stderr);
    set_bar_in_last_line(terminal && !finished);
  }

  void show_if_due() {
    const double waited = std::chrono::duration<double>(Clock::now() - shown).count();
    // Elsewhere than on a terminal finish() is about to say the same in a line of its own.
    if (!terminal && total > 0 && done >= total) return;
    if (!finished && waited >= (terminal ? kBarSeconds : kLineSeconds)) show();
  }
};

Progress::Progress(std::string title, int64_t total) : state_(std::make_unique<State>()) {
  state_->title = std::move(title);
  state_->total = total;
  state_->terminal = ::isatty(STDERR_FILENO) == 1;
  state_->quiet = log_quiet();
}

Progress::~Progress() {
  finish();
}

void Progress::advance(int64_t steps) {
  const std::lock_guard lock(state_->mutex);
  state_->done += steps;
  state_->show_if_due();
}

void Progress::message(const std::string& text) {
  const std::lock_guard lock(state_->mutex);
  state_->message = text;
  state_->show_if_due();
}

void Progress::finish() {
  const std::lock_guard lock(state_->mutex);
  if (state_->finished) return;
  state_->finished = true;
  state_->show();
}

std::string duration_text(double seconds) {
  char text[48];
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  if (seconds < 10)
    std::snprintf(text, sizeof text, "%.1f s", std::max(0.0, seconds));
  else if (whole < 60)
    std::snprintf(text, sizeof text, "%d s", static_cast<int>(whole));
  else if (whole < 3600)
    std::snprintf(text,
                  sizeof text,
                  "%d min %02d s",
                  static_cast<int>(whole / 60),
                  static_cast<int>(whole % 60));
  else
    std::snprintf(text,
                  sizeof text,
                  "%lld h %02d min",
                  static_cast<long long>(whole / 3600),
                  static_cast<int>(whole % 3600 / 60));
  return text;
}

}  // namespace vireo
