#include "models/weights/pickle_reader.h"
#include "tests/fuzz/fuzz.h"

void vireo::fuzz::one_input(std::string_view bytes) {
  try {
    PickleReader reader(bytes);
    const PickleNode* root = reader.read();
    for (const PickleNode* item : root->items) item->description();
  } catch (const PickleError&) {
  }
}
