#include "vision/core/interrupt.h"

#include <cerrno>
#include <csignal>
#include <ctime>
#include <string>

#include <unistd.h>

#include "vision/core/error.h"

namespace vireo {
namespace {

// timeout(1) and schedulers signal a process and then its group: within this time it is one
// request.
constexpr double kOneRequestSeconds = 0.25;

volatile std::sig_atomic_t asked_to_stop = 0;
volatile double asked_at = 0;
int guards = 0;
struct sigaction before_int, before_term;

double seconds_now() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);  // a signal handler may
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

void on_signal(int signal) {
  if (asked_to_stop != 0) {
    if (seconds_now() - asked_at < kOneRequestSeconds) return;
    ::_exit(128 + signal);
  }
  asked_at = seconds_now();
  asked_to_stop = 1;
  static constexpr char kText[] =
      "\nstopping as soon as this step is done; once more stops at once\n";
  const int error = errno;
  static_cast<void>(!::write(STDERR_FILENO, kText, sizeof(kText) - 1));
  errno = error;
}

}  // namespace

InterruptGuard::InterruptGuard() {
  if (guards++ > 0) return;
  asked_to_stop = 0;
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGINT, &action, &before_int);
  ::sigaction(SIGTERM, &action, &before_term);
}

InterruptGuard::~InterruptGuard() {
  if (--guards > 0) return;
  ::sigaction(SIGINT, &before_int, nullptr);
  ::sigaction(SIGTERM, &before_term, nullptr);
}

bool interrupted() {
  return asked_to_stop != 0;
}

void throw_if_interrupted(const char* what_now) {
  if (interrupted()) throw Interrupted(std::string("stopped as asked; ") + what_now);
}

}  // namespace vireo
