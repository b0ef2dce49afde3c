#include "datasets/array_room.h"

#include "kernels/process_memory.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

std::string mebibytes(double bytes) {
  return std::to_string(static_cast<int64_t>(bytes) >> 20) + " MiB";
}

}  // namespace

void check_room(const std::filesystem::path& path,
                const std::string& where,
                double values,
                double bytes_each,
                int64_t free) {
  const double bytes = values * bytes_each;
  if (values > static_cast<double>(kMostArrayValues))
    throw DataError(path,
                    where + "holds " + std::to_string(static_cast<int64_t>(values)) + " values (" +
                        mebibytes(bytes) + "); at most " + std::to_string(kMostArrayValues) +
                        " are read from one array. Save it in parts, as slices");
  if (bytes > static_cast<double>(free))
    throw DataError(path,
                    where + "takes " + mebibytes(bytes) + " of memory, of which " +
                        mebibytes(static_cast<double>(free)) +
                        " are free. Take fewer [data] workers, or save it in parts, as slices");
}

void check_room(const std::filesystem::path& path,
                const std::string& where,
                double values,
                double bytes_each) {
  check_room(path, where, values, bytes_each, available_memory_bytes());
}

}  // namespace vireo
