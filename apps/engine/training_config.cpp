#include "apps/engine/training_config.h"

namespace vireo {

namespace fs = std::filesystem;

TrainingConfig TrainingConfig::from_config(ConfigTable table) {
  TrainingConfig c;
  c.epochs = table.integer("epochs", c.epochs, 1, 1'000'000);
  c.max_minutes = table.number("max_minutes", c.max_minutes, 0, 1e7);
  c.patience = table.integer("patience", c.patience, 0);
  c.seed = static_cast<uint64_t>(table.integer("seed", static_cast<int64_t>(c.seed), 0));
  c.deterministic = table.boolean("deterministic", c.deterministic);
  c.fold = table.integer("fold", c.fold, 0, 1000);
  c.device = table.choice("device", c.device, {"auto", "cpu", "cuda"});
  c.autocast = table.choice("autocast", c.autocast, {"off", "bf16"});
  c.channels_last = table.boolean("channels_last", c.channels_last);
  c.accumulate = table.integer("accumulate", c.accumulate, 1, 10'000);
  c.gradient_clip = table.number("gradient_clip", c.gradient_clip, 0, 1e9);
  c.ema_decay = table.number("ema_decay", c.ema_decay, 0, 0.999999);
  c.bad_steps = table.integer("bad_steps", c.bad_steps, 1);
  c.checkpoint_minutes = table.number("checkpoint_minutes", c.checkpoint_minutes, 0.001, 1e6);
  c.threads = table.integer("threads", c.threads, -1, 256);
  c.ahead = table.integer("ahead", c.ahead, 1, 1000);
  c.layer_decay = table.number("layer_decay", c.layer_decay, 0.01, 1);
  c.pretrained = table.path("pretrained", "");
  c.schedule = Schedule::from_config(table);
  c.optimizer.weight_decay = table.number("weight_decay", c.optimizer.weight_decay, 0, 10);
  const auto betas = table.numbers("betas", {c.optimizer.beta1, c.optimizer.beta2}, 2);
  c.optimizer.beta1 = betas[0];
  c.optimizer.beta2 = betas[1];
  if (!(betas[0] >= 0 && betas[0] < 1 && betas[1] >= 0 && betas[1] < 1))
    table.fail("betas", "expected two numbers in [0, 1)");
  c.optimizer.epsilon = table.number("epsilon", c.optimizer.epsilon, 1e-16, 1);
  if (c.deterministic && c.max_minutes > 0)
    table.fail("max_minutes",
               "a time budget lets the clock decide the learning rate, which excludes "
               "deterministic = true; set max_minutes = 0 and choose epochs");
  return c;
}

ValidationConfig ValidationConfig::from_config(ConfigTable table) {
  ValidationConfig c;
  c.every_epochs = table.integer("every_epochs", c.every_epochs, 1);
  c.slices_per_case = table.integer("slices_per_case", c.slices_per_case, 0);
  c.select_best = table.choice("select", "best", {"best", "last"}) == "best";
  c.whole_cases = table.boolean("whole_cases", c.whole_cases);
  return c;
}

fs::path run_folder(const fs::path& config, int64_t fold_asked_for) {
  fs::path path = fs::absolute(config).lexically_normal();
  const fs::path relative = path.lexically_relative(fs::current_path());
  path = relative.empty() || *relative.begin() == ".." ? path.relative_path() : relative;
  if (*path.begin() == "configs") path = path.lexically_relative("configs");
  path = "runs" / path.replace_extension();
  if (fold_asked_for >= 0) path /= "fold_" + std::to_string(fold_asked_for);
  return path;
}

}  // namespace vireo
