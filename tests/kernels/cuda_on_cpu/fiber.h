#pragma once

#include <csetjmp>
#include <cstddef>
#include <memory>

#include <ucontext.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace vireo::cuda_on_cpu {

/// A path of execution with a stack of its own, which runs when it is resumed and until it pauses.
class Fiber {
 public:
  /// `entry` never returns; it calls entered() first.
  explicit Fiber(void (*entry)()) : stack_(new std::byte[kStackBytes]) {
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack_.get();
    context_.uc_stack.ss_size = kStackBytes;
    context_.uc_link = nullptr;
    makecontext(&context_, entry, 0);
  }
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

#if defined(__SANITIZE_ADDRESS__)
  void entered() {
    __sanitizer_finish_switch_fiber(nullptr, &outer_stack_, &outer_bytes_);
  }
  void resume() {
    void* kept = nullptr;
    __sanitizer_start_switch_fiber(&kept, stack_.get(), kStackBytes);
    swapcontext(&outer_, &context_);
    __sanitizer_finish_switch_fiber(kept, nullptr, nullptr);
  }
  void pause() {
    void* kept = nullptr;
    __sanitizer_start_switch_fiber(&kept, outer_stack_, outer_bytes_);
    swapcontext(&context_, &outer_);
    __sanitizer_finish_switch_fiber(kept, &outer_stack_, &outer_bytes_);
  }
#else
  void entered() {}
  // swapcontext() asks the kernel for the signal mask each time, which takes 30 times as long.
  void resume() {
    if (_setjmp(outer_) != 0) return;
    if (started_) _longjmp(inner_, 1);
    started_ = true;
    setcontext(&context_);
  }
  void pause() {
    if (_setjmp(inner_) == 0) _longjmp(outer_, 1);
  }
#endif

 private:
  static constexpr size_t kStackBytes = 256 * 1024;

  std::unique_ptr<std::byte[]> stack_;
  ucontext_t context_;
#if defined(__SANITIZE_ADDRESS__)
  ucontext_t outer_;
  const void* outer_stack_ = nullptr;
  size_t outer_bytes_ = 0;
#else
  jmp_buf inner_, outer_;
  bool started_ = false;
#endif
};

}  // namespace vireo::cuda_on_cpu
