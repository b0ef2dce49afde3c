#include "kernels/kept_memory.h"

#include <algorithm>
#include <mutex>
#include <unordered_map>
#include <vector>

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>

namespace vireo {
namespace {

// Blocks that the C library keeps itself are left to it.
constexpr size_t kLeastBytes = size_t{32} << 20;
// Blocks begin and end where huge pages do.
constexpr size_t kPage = size_t{2} << 20;
// Of a block that serves again, what may be left over: an eighth.
constexpr size_t kLeftOverShare = 8;

struct Block {
  void* start = nullptr;
  size_t bytes = 0;
};

void* map_block(size_t bytes) {
  void* const mapped =
      ::mmap(nullptr, bytes + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  // What lies before and behind whole pages is given back.
  const auto start = reinterpret_cast<uintptr_t>(mapped);
  const uintptr_t aligned = (start + kPage - 1) / kPage * kPage;
  if (aligned > start) ::munmap(mapped, aligned - start);
  const size_t behind = start + kPage - aligned;
  if (behind > 0) ::munmap(reinterpret_cast<void*>(aligned + bytes), behind);
  auto* const block = reinterpret_cast<void*>(aligned);
#ifdef MADV_HUGEPAGE
  ::madvise(block, bytes, MADV_HUGEPAGE);  // a wish
#endif
  return block;
}

class BlockKeeper final : public c10::Allocator {
 public:
  static BlockKeeper& instance() {
    // Tensors may outlive every static object.
    static auto* keeper = new BlockKeeper;
    return *keeper;
  }

  void keep() {
    const std::lock_guard lock(mutex_);
    ++keeping_;
  }
  void keep_no_longer() {
    const std::lock_guard lock(mutex_);
    if (--keeping_ == 0) release();
  }
  void give_up() {
    const std::lock_guard lock(mutex_);
    release();
  }
  KeptMemoryCounts counts() {
    const std::lock_guard lock(mutex_);
    return counts_;
  }

  c10::DataPtr allocate(size_t bytes) override {
    void* const start = bytes >= kLeastBytes ? take(bytes) : nullptr;
    if (start == nullptr) return others_->allocate(bytes);
    return {start, start, &free_block, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_block; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    others_->copy_data(to, from, bytes);
  }

 private:
  BlockKeeper() : others_(c10::GetCPUAllocator()) { c10::SetCPUAllocator(this, /*priority=*/1); }

  static void free_block(void* start) {
    BlockKeeper& keeper = instance();
    if (!keeper.take_back(start)) keeper.others_->raw_deleter()(start);
  }

  // A block for so many bytes; nullptr where none is to be kept, or none is left.
  void* take(size_t wanted) {
    const size_t bytes = (wanted + kPage - 1) / kPage * kPage;
    const std::lock_guard lock(mutex_);
    if (keeping_ == 0) return nullptr;
    auto best = kept_.end();
    for (auto one = kept_.begin(); one != kept_.end(); ++one)
      if (one->bytes >= bytes && one->bytes <= bytes + bytes / kLeftOverShare &&
          (best == kept_.end() || one->bytes < best->bytes))
        best = one;
    Block block;
    if (best != kept_.end()) {
      block = *best;
      kept_.erase(best);
      counts_.kept -= static_cast<int64_t>(block.bytes);
      ++counts_.reused;
    } else {
      make_room(static_cast<int64_t>(bytes));
      block = {map_block(bytes), bytes};
      if (block.start == nullptr) {
        release();
        return nullptr;
      }
    }
    in_use_[block.start] = block.bytes;
    counts_.in_use += static_cast<int64_t>(block.bytes);
    counts_.most_in_use = std::max(counts_.most_in_use, counts_.in_use);
    return block.start;
  }

  // Whether it is one of ours.
  bool take_back(void* start) {
    const std::lock_guard lock(mutex_);
    const auto found = in_use_.find(start);
    if (found == in_use_.end()) return false;
    const Block block{start, found->second};
    in_use_.erase(found);
    counts_.in_use -= static_cast<int64_t>(block.bytes);
    if (keeping_ > 0) {
      kept_.push_back(block);
      counts_.kept += static_cast<int64_t>(block.bytes);
    } else {
      ::munmap(block.start, block.bytes);
    }
    return true;
  }

  // Gives back what was kept longest, until a new block makes no more than was once in use.
  void make_room(int64_t bytes) {
    const int64_t most = std::max(counts_.most_in_use, counts_.in_use + bytes);
    auto one = kept_.begin();
    for (; one != kept_.end() && counts_.in_use + counts_.kept + bytes > most; ++one) {
      ::munmap(one->start, one->bytes);
      counts_.kept -= static_cast<int64_t>(one->bytes);
    }
    kept_.erase(kept_.begin(), one);
  }

  void release() {
    for (const Block& block : kept_) ::munmap(block.start, block.bytes);
    kept_.clear();
    counts_.kept = 0;
    counts_.most_in_use = counts_.in_use;
  }

  c10::Allocator* const others_;
  std::mutex mutex_;
  int keeping_ = 0;
  std::unordered_map<void*, size_t> in_use_;
  std::vector<Block> kept_;  // the one that was kept longest first
  KeptMemoryCounts counts_;
};

}  // namespace

KeptMemory::KeptMemory() {
  BlockKeeper::instance().keep();
}

KeptMemory::~KeptMemory() {
  BlockKeeper::instance().keep_no_longer();
}

void release_kept_memory() {
  BlockKeeper::instance().give_up();
}

KeptMemoryCounts kept_memory_counts() {
  return BlockKeeper::instance().counts();
}

}  // namespace vireo
