#include "models/weights/pretrained.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/vision_rwkv.h"
#include "models/weights/state_dict.h"

namespace vireo {
namespace {

std::shared_ptr<Model> model_of(const std::string& toml, const ModelShape& shape = {3, 4}) {
  auto table = ConfigTable::from_text(toml, "model.toml");
  return create_model(table, shape);
}

std::shared_ptr<VisionRwkv> vision_rwkv(int64_t image_size) {
  return std::dynamic_pointer_cast<VisionRwkv>(
      model_of("name = \"vision_rwkv\"\nchannels = 8\ndepth = 2\npatch_size = 4\nimage_size = " +
               std::to_string(image_size)));
}

TEST(Pretrained, ResizesPositionsAsTheNetworkDoes) {
  const auto old = vision_rwkv(16), fresh = vision_rwkv(24);
  auto state = state_of(*old);
  for (auto& [name, tensor] : state) tensor = tensor.to(at::kDouble);
  const PretrainedReport report = load_pretrained(*fresh, state, "old");
  EXPECT_EQ(report.resized, std::vector<std::string>{"backbone.pos_embed"});
  EXPECT_TRUE(at::equal(fresh->backbone()->pos_embed, old->backbone()->positions(6, 6)));
}

}  // namespace
}  // namespace vireo
