#include "tests/kernels/cuda_on_cpu/machine.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <utility>
#include <vector>

#include "tests/kernels/cuda_on_cpu/fiber.h"

namespace vireo::cuda_on_cpu {
namespace {

constexpr unsigned kLanes = 32;
constexpr size_t kMostOfLane = 64;
constexpr std::byte kPoison{0xff};  // NaN in every floating type

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kGuard = 0;  // AddressSanitizer has its own
#else
constexpr size_t kGuard = 1024;
#endif

/// Threads that wait for each other: a warp, a block, a cluster.
struct Group {
  const char* name;
  int64_t size, arrived = 0, left = 0, passed = 0;
  Place place{};  ///< where those that arrived wait
};

struct Warp {
  Group group{"warp", 0};
  std::array<std::byte, kLanes * kMostOfLane> lanes;
};

/// A variable in shared memory, between guards.
struct Piece {
  const void* tag;
  size_t bytes;
  std::unique_ptr<std::byte[]> memory;

  std::byte* begin() const { return memory.get() + kGuard; }
};

struct Block {
  Index index;
  unsigned rank;
  Group group{"block", 0};
  std::vector<Warp> warps;
  std::vector<Piece> pieces;
};

void run_threads();

struct Thread {
  Fiber fiber{run_threads};
  Index index;
  Block* block = nullptr;
  Warp* warp = nullptr;
  unsigned lane = 0;
  Group* waits_for = nullptr;
  int64_t until = 0;  ///< it has been passed so often
  bool ended = false;

  bool ready() const { return !ended && (waits_for == nullptr || waits_for->passed >= until); }
};

Device the_device;
std::vector<std::unique_ptr<Thread>> threads;  ///< of the cluster that runs
std::vector<Block> blocks;                     ///< of the same
Group cluster{"cluster", 0};
Thread* current = nullptr;
const std::function<void()>* kernel = nullptr;
KernelLimits kernel_limits;
std::exception_ptr error;
std::mt19937 shuffler;

std::string text(const Index& i) {
  return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
}
std::string text(const Place& place) {
  return std::string(place.file_name()) + ":" + std::to_string(place.line());
}
bool same(const Place& a, const Place& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         std::strcmp(a.file_name(), b.file_name()) == 0;
}

/// 0 to count - 1 as the device's order has it.
std::vector<int64_t> in_order(int64_t count) {
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  if (the_device.order == Order::kBackward) std::reverse(order.begin(), order.end());
  if (the_device.order == Order::kShuffled) std::shuffle(order.begin(), order.end(), shuffler);
  return order;
}

void meet(Group& group, const Place& place, const std::function<void()>& last = {}) {
  if (group.left > 0)
    fail("waits at " + text(place) + " for threads of its " + group.name + " that have ended");
  if (group.arrived > 0 && !same(group.place, place))
    fail("waits at " + text(place) + ", others of its " + group.name + " at " + text(group.place));
  group.place = place;
  if (++group.arrived < group.size) {
    current->waits_for = &group;
    current->until = group.passed + 1;
    current->fiber.pause();
    return;
  }
  if (last) last();
  group.arrived = 0;
  ++group.passed;
}

void leave(Thread& thread) {
  for (Group* group : {&thread.warp->group, &thread.block->group, &cluster}) {
    if (group->arrived > 0)
      fail(std::string("ends while others of its ") + group->name + " wait for it at " +
           text(group->place));
    ++group->left;
  }
}

/// A fiber's whole life: one thread after another.
void run_threads() {
  current->fiber.entered();
  for (;;) {
    try {
      (*kernel)();
      leave(*current);
    } catch (...) {
      error = std::current_exception();
    }
    current->ended = true;
    current->fiber.pause();
  }
}

/// Until none of its threads can go on; false: none could.
bool run_warp(size_t first, unsigned lanes) {
  const std::vector<int64_t> order = in_order(lanes);
  for (bool any = false;; any = true) {
    bool moved = false;
    for (const int64_t lane : order) {
      Thread& thread = *threads[first + static_cast<size_t>(lane)];
      if (!thread.ready()) continue;
      thread.waits_for = nullptr;
      current = &thread;
      thread_index = thread.index;
      block_index = thread.block->index;
      thread.fiber.resume();
      if (error) std::rethrow_exception(std::exchange(error, nullptr));
      moved = true;
    }
    if (!moved) return any;
  }
}

Index index_of(int64_t i, const Size& size) {
  return {static_cast<unsigned>(i % size.x),
          static_cast<unsigned>(i / size.x % size.y),
          static_cast<unsigned>(i / size.x / size.y)};
}

/// The warps of a cluster's block have threads from this number on.
size_t first_of(size_t rank, unsigned warp) {
  return rank * static_cast<size_t>(running.block.count()) + warp * kLanes;
}
unsigned lanes_of(unsigned warp) {
  return static_cast<unsigned>(
      std::min<int64_t>(kLanes, running.block.count() - int64_t{warp} * kLanes));
}

void set_up_cluster(int64_t first_block) {
  const auto size = static_cast<size_t>(running.block.count());
  const auto warps = static_cast<unsigned>((size + kLanes - 1) / kLanes);
  cluster = {"cluster", static_cast<int64_t>(running.cluster * size)};
  while (threads.size() < running.cluster * size) threads.push_back(std::make_unique<Thread>());
  blocks.clear();
  blocks.resize(running.cluster);
  for (unsigned rank = 0; rank < running.cluster; ++rank) {
    Block& block = blocks[rank];
    block.index = index_of(first_block + rank, running.grid);
    block.rank = rank;
    block.group.size = static_cast<int64_t>(size);
    block.warps.resize(warps);
    for (unsigned w = 0; w < warps; ++w) {
      block.warps[w].group.size = lanes_of(w);
      for (unsigned lane = 0; lane < lanes_of(w); ++lane) {
        Thread& thread = *threads[first_of(rank, w) + lane];
        thread.index = index_of(int64_t{w} * kLanes + lane, running.block);
        thread.block = &block;
        thread.warp = &block.warps[w];
        thread.lane = lane;
        thread.waits_for = nullptr;
        thread.ended = false;
      }
    }
  }
}

/// Until none of its warps can go on; false: none could.
bool run_block(size_t rank) {
  const std::vector<int64_t> order = in_order(static_cast<int64_t>(blocks[rank].warps.size()));
  for (bool any = false;; any = true) {
    bool moved = false;
    for (const int64_t i : order) {
      const auto w = static_cast<unsigned>(i);
      moved |= run_warp(first_of(rank, w), lanes_of(w));
    }
    if (!moved) return any;
  }
}

void run_cluster() {
  while (cluster.left < cluster.size) {
    bool moved = false;
    for (const int64_t rank : in_order(running.cluster))
      moved |= run_block(static_cast<size_t>(rank));
    if (moved) continue;
    for (const auto& thread : threads)
      if (thread->waits_for != nullptr)
        throw std::runtime_error("no thread can go on; thread " + text(thread->index) +
                                 " of block " + text(thread->block->index) + " waits for its " +
                                 thread->waits_for->name + " at " + text(thread->waits_for->place));
  }
  for (const Block& block : blocks)
    for (const Piece& piece : block.pieces)
      for (size_t i = 0; i < kGuard; ++i)
        if (piece.memory[i] != kPoison || piece.begin()[piece.bytes + i] != kPoison)
          throw std::runtime_error("block " + text(block.index) +
                                   " wrote beyond what it has of shared memory");
}

void check(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error("launch: " + what);
}

void check_launch(const Launch& l) {
  check(l.block.count() >= 1 && l.block.count() <= 1024 && l.block.z <= 64,
        "a block of " + std::to_string(l.block.count()) + " threads");
  check(l.grid.count() >= 1 && l.grid.x < (1u << 31) && l.grid.y < 65536 && l.grid.z < 65536,
        "a grid of " + std::to_string(l.grid.x) + " x " + std::to_string(l.grid.y) + " x " +
            std::to_string(l.grid.z) + " blocks");
  check(l.shared_bytes <= static_cast<size_t>(kernel_limits.dynamic_shared_bytes),
        std::to_string(l.shared_bytes) + " bytes of shared memory, asked for were " +
            std::to_string(kernel_limits.dynamic_shared_bytes));
  check(l.cluster == 1 || the_device.major >= 9, "clusters before compute capability 9.0");
  check(l.cluster == 1 || (l.cluster <= (kernel_limits.large_clusters ? 16u : 8u) &&
                           l.cluster <= the_device.cluster_room && l.grid.x % l.cluster == 0),
        "a cluster of " + std::to_string(l.cluster) + " blocks");
}

}  // namespace

Index thread_index, block_index;
Launch running;

int Device::shared_bytes() const {
  // CUDA programming guide, "Technical Specifications per Compute Capability".
  return (major >= 9 ? 227 : minor == 0 ? 163 : 99) * 1024;
}

Device& device() {
  return the_device;
}

KernelLimits& limits_of(const void* kernel_address) {
  static std::map<const void*, KernelLimits> limits;
  return limits[kernel_address];
}

void run(const Launch& launch, const KernelLimits& limits, const std::function<void()>& thread) {
  kernel_limits = limits;
  check_launch(launch);
  ++the_device.launches;
  if (launch.cluster > 1) ++the_device.cluster_launches;
  running = launch;
  kernel = &thread;
  try {
    for (const int64_t i : in_order(launch.grid.count() / launch.cluster)) {
      set_up_cluster(i * launch.cluster);
      run_cluster();
    }
  } catch (...) {
    threads.clear();  // some stand in the middle of the kernel
    throw;
  }
}

void meet_block(const Place& place) {
  meet(current->block->group, place);
}

void meet_cluster(const Place& place) {
  meet(cluster, place);
}

unsigned rank_in_cluster() {
  return current->block->rank;
}

void meet_warp(void* mine,
               size_t bytes,
               const std::function<void(void* lanes)>& all,
               const Place& place) {
  Warp& warp = *current->warp;
  if (warp.group.size != kLanes) fail("a warp of " + std::to_string(warp.group.size) + " lanes");
  if (bytes > kMostOfLane) fail("lanes exchange too much");
  // Each has a place of its own: some are at their next meeting before others are back from this.
  const auto of_lane = [&](size_t lane) { return warp.lanes.data() + lane * kMostOfLane; };
  std::memcpy(of_lane(current->lane), mine, bytes);
  meet(warp.group, place, [&] {
    alignas(16) std::array<std::byte, kLanes * kMostOfLane> together;
    for (size_t i = 0; i < kLanes; ++i) std::memcpy(together.data() + i * bytes, of_lane(i), bytes);
    all(together.data());
    for (size_t i = 0; i < kLanes; ++i) std::memcpy(of_lane(i), together.data() + i * bytes, bytes);
  });
  std::memcpy(mine, of_lane(current->lane), bytes);
}

namespace {
std::byte* memory_in(Block& block, const void* tag, size_t bytes) {
  size_t fixed = 0;
  for (const Piece& piece : block.pieces) {
    if (piece.tag == tag) return piece.begin();
    if (piece.tag != nullptr) fixed += piece.bytes;
  }
  if (tag != nullptr) fixed += bytes;
  if (fixed > 48 * 1024 ||
      fixed + running.shared_bytes > static_cast<size_t>(kernel_limits.dynamic_shared_bytes))
    fail(std::to_string(fixed) + " bytes of shared memory beside " +
         std::to_string(running.shared_bytes) + " dynamic ones");
  Piece piece{tag, bytes, std::unique_ptr<std::byte[]>(new std::byte[bytes + 2 * kGuard])};
  std::fill_n(piece.memory.get(), bytes + 2 * kGuard, kPoison);
  block.pieces.push_back(std::move(piece));
  return block.pieces.back().begin();
}
}  // namespace

void* block_memory(const void* tag, size_t bytes) {
  return memory_in(*current->block, tag, tag == nullptr ? running.shared_bytes : bytes);
}

void* memory_of_rank(const void* mine, unsigned rank) {
  if (rank >= blocks.size()) fail("asks for block " + std::to_string(rank) + " of its cluster");
  Block& other = blocks[rank];
  if (other.group.left == other.group.size) fail("reads the memory of a block that has ended");
  for (const Piece& piece : current->block->pieces) {
    const ptrdiff_t at = static_cast<const std::byte*>(mine) - piece.begin();
    if (at >= 0 && at < static_cast<ptrdiff_t>(piece.bytes))
      return memory_in(other, piece.tag, piece.bytes) + at;
  }
  fail("asks where other blocks have what is not in shared memory");
}

void fail(const std::string& what) {
  throw std::runtime_error("thread " + text(thread_index) + " of block " + text(block_index) + " " +
                           what);
}

}  // namespace vireo::cuda_on_cpu
