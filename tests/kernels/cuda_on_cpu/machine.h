#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <source_location>
#include <string>
#include <type_traits>

// A GPU's grids of threads on one thread of the CPU. Every thread of a cluster of blocks is a
// fiber; a warp, and a block, runs as far as it gets without the others, then the next one. What no
// GPU allows, or what can only work by luck, throws std::runtime_error.
namespace vireo::cuda_on_cpu {

/// In which order blocks, warps and lanes run between barriers. Results must not depend on it.
enum class Order { kForward, kBackward, kShuffled };

struct Device {
  int major = 9, minor = 0;
  /// How many blocks of a cluster there is room for; larger clusters are launched in vain.
  unsigned cluster_room = 16;
  Order order = Order::kForward;
  int64_t cluster_launches = 0, launches = 0;  ///< since someone set them to 0

  /// The most shared memory that a block may ask for.
  int shared_bytes() const;
};
Device& device();

struct Index {
  unsigned x = 0, y = 0, z = 0;
};
struct Size {
  unsigned x = 1, y = 1, z = 1;

  Size(unsigned x_in = 1, unsigned y_in = 1, unsigned z_in = 1) : x(x_in), y(y_in), z(z_in) {}
  int64_t count() const { return int64_t{x} * y * z; }
};

/// What a kernel has asked for beyond what every kernel may have.
struct KernelLimits {
  int dynamic_shared_bytes = 48 * 1024;
  bool large_clusters = false;
};
KernelLimits& limits_of(const void* kernel);

struct Launch {
  Size grid, block;
  size_t shared_bytes = 0;
  unsigned cluster = 1;
};

/// Runs `thread` once for every thread of the grid.
void run(const Launch& launch, const KernelLimits& limits, const std::function<void()>& thread);

// ---- Of the running thread. ----

extern Index thread_index, block_index;
extern Launch running;

using Place = std::source_location;

void meet_block(const Place& place);
void meet_cluster(const Place& place);
unsigned rank_in_cluster();

/// The block's shared memory that `tag` names; null: the dynamic one, whose size the launch says.
void* block_memory(const void* tag, size_t bytes);
/// Where the block of that rank in the cluster has what this one has at `mine`.
void* memory_of_rank(const void* mine, unsigned rank);

/// All 32 lanes of the warp meet, each with `bytes` at `mine`; the last one has `all` work on them
/// together, [32] of these, and each takes its own back.
void meet_warp(void* mine,
               size_t bytes,
               const std::function<void(void* lanes)>& all,
               const Place& place);

/// The same; all(T* lanes).
template <class T, class All>
T meet_warp(T mine, const All& all, const Place& place) {
  static_assert(std::is_trivially_copyable_v<T>);
  meet_warp(
      &mine, sizeof(T), [&](void* lanes) { all(static_cast<T*>(lanes)); }, place);
  return mine;
}

[[noreturn]] void fail(const std::string& what);

}  // namespace vireo::cuda_on_cpu
