#include "apps/engine/checkpoint.h"

#include "apps/engine/training_state.h"
#include "tests/fuzz/fuzz.h"

// A training state (JSON), and behind a '#' a checkpoint file.
void vireo::fuzz::one_input(std::string_view bytes) {
  if (bytes.starts_with('#')) {
    const auto path = write_bytes("a.safetensors", bytes.substr(1));
    read_or_refuse([&] {
      for (const auto& [name, tensor] : read_checkpoint(path).model) look_at(tensor);
    });
    return;
  }
  const auto source = scratch() / "a.safetensors";
  std::string written;
  read_or_refuse([&] { written = TrainingState::from_text(std::string(bytes), source).to_text(); });
  if (!written.empty()) TrainingState::from_text(written, source);
}
