#include "apps/engine/training_pass.h"

#include <utility>

#include "vision/core/autocast.h"
#include "vision/core/log.h"

namespace vireo {

TrainingPass::TrainingPass(std::shared_ptr<Model> model,
                           const FlatParameters& parameters,
                           BatchLoss loss,
                           bool bf16,
                           std::unique_ptr<GraphStream> stream)
    : pass_(
          [model = std::move(model), loss = std::move(loss), bf16](
              const RecordedPass::Tensors& inputs) -> RecordedPass::Tensors {
            at::Tensor value;
            {
              const Autocast autocast(bf16, inputs[0].device().type());
              value = loss(model->forward(inputs[0]), {inputs[0], inputs[1]});
            }
            value.backward();
            return {value.detach()};
          },
          parameters.changed_by_passes(),
          std::move(stream),
          [](const std::string& why) {
            log_warning("the operations of a training step are launched one by one: " + why);
          }) {}

}  // namespace vireo
