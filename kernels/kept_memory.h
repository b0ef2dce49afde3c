#pragma once

#include <cstdint>

// Memory of large tensors on the CPU. The C library returns every block of more than 32 MiB to the
// system when it is freed; the next one comes back page by page, each emptied by the kernel first.
// From images of about 2048 x 2048 on that takes a third of a network's time.
namespace vireo {

/// While one of these lives, the blocks of large tensors that are freed are kept for those to come:
/// never more than lets all of them together take as much as was in use at a time before. The end
/// of the last one gives all that is kept back to the system.
class KeptMemory {
 public:
  KeptMemory();
  ~KeptMemory();
  KeptMemory(const KeptMemory&) = delete;
  KeptMemory& operator=(const KeptMemory&) = delete;
};

/// Gives back what is kept now, and forgets how much was in use before.
void release_kept_memory();

/// Of large blocks, in bytes.
struct KeptMemoryCounts {
  int64_t in_use = 0;
  int64_t kept = 0;
  int64_t most_in_use = 0;  ///< at a time, since all was last given back
  int64_t reused = 0;       ///< how often a kept block served again; a count
};
KeptMemoryCounts kept_memory_counts();

}  // namespace vireo
