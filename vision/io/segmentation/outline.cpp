#include "vision/io/segmentation/outline.h"

#include <algorithm>

namespace vireo {
namespace {

// A point where four pixels meet: (x, y) is the upper left corner of pixel (x, y).
struct Corner {
  int64_t x = 0, y = 0;
  bool operator==(const Corner&) const = default;
};

constexpr int kStepX[4] = {1, 0, -1, 0};
constexpr int kStepY[4] = {0, 1, 0, -1};

// A part of a slice: what has the value in it, and nothing else, counts as inside.
struct Window {
  const int32_t* slice;
  int64_t stride;                    // of the slice's rows
  int64_t left, top, width, height;  // within the slice
  int32_t value;

  bool inside(int64_t x, int64_t y) const {
    return x >= 0 && y >= 0 && x < width && y < height &&
           slice[(top + y) * stride + left + x] == value;
  }
};

// The smallest window that holds all pixels of the value; empty without one.
Window window_of(const int32_t* slice, int64_t height, int64_t width, int32_t value) {
  int64_t left = width, right = -1, top = height, bottom = -1;
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < width; ++x) {
      if (slice[y * width + x] != value) continue;
      left = std::min(left, x);
      right = std::max(right, x);
      top = std::min(top, y);
      bottom = y;
    }
  if (right < 0) return {slice, width, 0, 0, 0, 0, value};
  return {slice, width, left, top, right - left + 1, bottom - top + 1, value};
}

// The edges around the pixels inside, and the loops they form. An edge has its pixel on the right
// hand (y grows downwards): loops around a region turn clockwise, those around a hole do not.
class EdgeMap {
 public:
  explicit EdgeMap(const Window& window)
      : columns_(window.width + 1),
        edges_(static_cast<size_t>(columns_ * (window.height + 1)), 0),
        used_(edges_.size(), 0),
        loop_at_(edges_.size(), -1) {
    for (int64_t y = 0; y < window.height; ++y)
      for (int64_t x = 0; x < window.width; ++x) {
        if (!window.inside(x, y)) continue;
        if (!window.inside(x, y - 1)) edges_[at({x, y})] |= 1;
        if (!window.inside(x + 1, y)) edges_[at({x + 1, y})] |= 2;
        if (!window.inside(x, y + 1)) edges_[at({x + 1, y + 1})] |= 4;
        if (!window.inside(x - 1, y)) edges_[at({x, y + 1})] |= 8;
      }
    for (int64_t y = 0; y <= window.height; ++y)
      for (int64_t x = 0; x <= window.width; ++x)
        for (int direction = 0; direction < 4; ++direction)
          if (has(edges_, {x, y}, direction) && !has(used_, {x, y}, direction))
            follow({x, y}, direction);
  }

  // Every corner that a loop passes, one pixel's side apart.
  std::vector<std::vector<Corner>>& loops() { return loops_; }
  // The loop through a corner; where two touch, one of them.
  int loop_at(const Corner& corner) const { return loop_at_[at(corner)]; }

 private:
  size_t at(const Corner& corner) const {
    return static_cast<size_t>(corner.y * columns_ + corner.x);
  }
  bool has(const std::vector<uint8_t>& set, const Corner& corner, int direction) const {
    return (set[at(corner)] >> direction & 1) != 0;
  }

  void follow(Corner here, int direction) {
    std::vector<Corner> loop;
    while (!has(used_, here, direction)) {
      used_[at(here)] |= static_cast<uint8_t>(1U << direction);
      loop_at_[at(here)] = static_cast<int>(loops_.size());
      loop.push_back(here);
      here.x += kStepX[direction];
      here.y += kStepY[direction];
      // Where two pixels touch at a corner only, the turn to the right stays with this one.
      int turn = 1;
      while (!has(edges_, here, (direction + turn) % 4)) turn = turn == 1 ? 0 : 3;
      direction = (direction + turn) % 4;
    }
    loops_.push_back(std::move(loop));
  }

  int64_t columns_;
  std::vector<uint8_t> edges_, used_;  // of each corner, bits of the directions of leaving edges
  std::vector<int> loop_at_;
  std::vector<std::vector<Corner>> loops_;
};

int64_t twice_area(const std::vector<Corner>& loop) {
  int64_t sum = 0;
  for (size_t i = 0; i < loop.size(); ++i) {
    const Corner &a = loop[i], &b = loop[(i + 1) % loop.size()];
    sum += a.x * b.y - b.x * a.y;
  }
  return sum;
}

// Leftmost, and of those the uppermost: the pixels left of it belong to the hole's region.
std::vector<Corner>::iterator keyhole_of(std::vector<Corner>& hole) {
  return std::min_element(hole.begin(), hole.end(), [](const Corner& a, const Corner& b) {
    return a.x != b.x ? a.x < b.x : a.y < b.y;
  });
}

PixelPolygon polygon_of(const std::vector<Corner>& loop, const Window& window) {
  PixelPolygon polygon;
  for (size_t i = 0; i < loop.size(); ++i) {
    const Corner& before = loop[(i + loop.size() - 1) % loop.size()];
    const Corner& here = loop[i];
    const Corner& after = loop[(i + 1) % loop.size()];
    const int64_t ax = here.x - before.x, ay = here.y - before.y;
    const int64_t bx = after.x - here.x, by = after.y - here.y;
    const bool straight = ax * by == ay * bx && ax * bx + ay * by > 0;
    if (!straight)
      polygon.push_back({static_cast<double>(window.left + here.x) - 0.5,
                         static_cast<double>(window.top + here.y) - 0.5});
  }
  return polygon;
}

}  // namespace

std::vector<PixelPolygon> outlines(const int32_t* slice,
                                   int64_t height,
                                   int64_t width,
                                   int64_t value) {
  const Window window = window_of(slice, height, width, static_cast<int32_t>(value));
  EdgeMap map(window);
  std::vector<std::vector<Corner>>& loops = map.loops();
  std::vector<size_t> outer_of(loops.size());
  std::vector<size_t> holes;
  for (size_t i = 0; i < loops.size(); ++i) {
    outer_of[i] = i;
    if (twice_area(loops[i]) < 0) holes.push_back(i);
  }
  for (const size_t i : holes) std::rotate(loops[i].begin(), keyhole_of(loops[i]), loops[i].end());
  // From left to right, so that the loop which a channel meets is an outer one or joined already.
  std::stable_sort(holes.begin(), holes.end(), [&](size_t a, size_t b) {
    return loops[a].front().x < loops[b].front().x;
  });
  for (const size_t i : holes) {
    std::vector<Corner>& hole = loops[i];
    Corner end = hole.front();
    do --end.x;
    while (map.loop_at(end) < 0);
    outer_of[i] = outer_of[static_cast<size_t>(map.loop_at(end))];
    std::vector<Corner>& outer = loops[outer_of[i]];
    const auto place = std::find(outer.begin(), outer.end(), end);
    hole.push_back(hole.front());
    hole.push_back(end);
    outer.insert(place + 1, hole.begin(), hole.end());
    hole.clear();
  }
  std::vector<PixelPolygon> polygons;
  for (const std::vector<Corner>& loop : loops)
    if (!loop.empty()) polygons.push_back(polygon_of(loop, window));
  return polygons;
}

}  // namespace vireo
