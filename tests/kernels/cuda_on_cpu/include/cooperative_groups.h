#pragma once

namespace cooperative_groups {

struct cluster_group {
  unsigned num_blocks() const { return vireo::cuda_on_cpu::running.cluster; }
  unsigned block_rank() const { return vireo::cuda_on_cpu::rank_in_cluster(); }
  void sync(vireo::cuda_on_cpu::Place place = vireo::cuda_on_cpu::Place::current()) const {
    vireo::cuda_on_cpu::meet_cluster(place);
  }
  template <class T>
  T* map_shared_rank(T* mine, int rank) const {
    return static_cast<T*>(vireo::cuda_on_cpu::memory_of_rank(mine, static_cast<unsigned>(rank)));
  }
};

inline cluster_group this_cluster() {
  return {};
}

}  // namespace cooperative_groups
