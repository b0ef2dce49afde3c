#include "models/recorded_network.h"

#include <utility>

#include <ATen/core/grad_mode.h>

#include "vision/core/autocast.h"
#include "vision/core/log.h"

namespace vireo {

RecordedNetwork::RecordedNetwork(std::shared_ptr<Model> network,
                                 bool bf16,
                                 std::unique_ptr<GraphStream> stream)
    : network_(register_module("network", std::move(network))),
      pass_(
          [network = network_, bf16](const RecordedPass::Tensors& inputs) -> RecordedPass::Tensors {
            const at::NoGradGuard no_grad;
            const Autocast autocast(bf16, inputs[0].device().type());
            return {network->forward(inputs[0]).to(at::kFloat)};
          },
          {},
          std::move(stream),
          [](const std::string& why) {
            log_warning("the network's operations are launched one by one: " + why);
          }) {}

}  // namespace vireo
