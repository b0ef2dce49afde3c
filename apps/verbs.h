#pragma once

namespace CLI {
class App;
}

// One function per verb, each in the file of its name: it declares the verb's options on `app` and
// sets the callback that runs it.
namespace vireo {

void add_prepare(CLI::App& app);
void add_train(CLI::App& app);
void add_predict(CLI::App& app);
void add_evaluate(CLI::App& app);
void add_baseline(CLI::App& app);
void add_bench(CLI::App& app);
void add_verify(CLI::App& app);
void add_info(CLI::App& app);
void add_import(CLI::App& app);
void add_phantom(CLI::App& app);
void add_deidentify(CLI::App& app);

}  // namespace vireo
