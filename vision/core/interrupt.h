#pragma once

namespace vireo {

/// Catches SIGINT and SIGTERM for as long as it lives: the first one raises a flag that long work
/// looks at, a second one ends the process at once; within a quarter of a second both are one
/// request, as timeout(1) makes it. Restores what was set before.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
};

/// Whether the user asked to stop since the outermost guard was set.
bool interrupted();

/// Throws Interrupted, saying `what_now` ("run the same command again to continue"), when asked to
/// stop.
void throw_if_interrupted(const char* what_now);

}  // namespace vireo
