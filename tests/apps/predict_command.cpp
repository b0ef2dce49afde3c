#include <cstddef>

#include <ATen/ATen.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <nlohmann/json.hpp>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "apps/engine/checkpoint.h"
#include "datasets/preparation.h"
#include "models/registry.h"
#include "models/weights/state_dict.h"
#include "tests/support/made_dicom.h"
#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/io/image_file.h"

// The program's own predict and info, with a checkpoint of a network that was never trained.
namespace vireo {
namespace {

namespace fs = std::filesystem;
using test::run_command;
using ::testing::HasSubstr;

Preparation made_preparation(ChannelNormalization::Kind kind, int64_t classes) {
  Preparation preparation;
  preparation.dataset_name = "made";
  preparation.channels = {{"grey", kind, 0, 0, 0.5, 0.25}};
  preparation.labels = {{"background", 0, {}}, {"cell", 255, {}}};
  for (int64_t k = 2; k < classes; ++k)
    preparation.labels.push_back({"class " + std::to_string(k), k, {}});
  return preparation;
}

void write_untrained(const fs::path& path,
                     std::array<int64_t, 2> window,
                     ChannelNormalization::Kind kind = ChannelNormalization::Kind::kRgb,
                     int64_t classes = 2) {
  const std::string table_text = "name = \"rwkv_unet_t\"";
  ConfigTable table = ConfigTable::from_text(table_text, "test");
  const auto model = create_model(table, {1, classes});
  Checkpoint checkpoint;
  checkpoint.model = state_of(*model);
  checkpoint.metadata = {
      {"model", table_text},
      {"model_shape", R"({"input_channels": 1, "class_count": )" + std::to_string(classes) + "}"},
      {"config", "# none"},
      {"preparation", made_preparation(kind, classes).to_json().dump()},
      {"window_yx", nlohmann::json(window).dump()},
      {"neighbours", "0"},
      {"mirrored_yx", "[true, true]"}};
  write_checkpoint(path, checkpoint);
}

class PredictCommand : public ::testing::Test {
 protected:
  test::CommandResult vireo(const std::string& arguments) const {
    return run_command(test::program().string() + " " + arguments);
  }
  void put_picture(const std::string& name, int64_t side) const {
    const at::Tensor values = (at::rand({1, 1, side, side}) * 255).to(at::kByte);
    write_image(folder_ / name, values, {{1, side, side}});
  }

  fs::path folder_ = test::scratch_folder();
  fs::path model_ = folder_ / "checkpoint_best.safetensors";
};

TEST_F(PredictCommand, HelpsWithAnExample) {
  for (const char* verb : {"predict", "info"}) {
    const test::CommandResult help = vireo(std::string(verb) + " --help");
    EXPECT_EQ(help.exit_code, 0);
    EXPECT_THAT(help.output, HasSubstr("Example"));
    EXPECT_THAT(help.output, HasSubstr(std::string("vireo ") + verb));
  }
}

TEST_F(PredictCommand, TellsUsageFromFailure) {
  EXPECT_EQ(vireo("predict").exit_code, 2);
  EXPECT_EQ(vireo("predict --model a b c --device tpu").exit_code, 2);
  EXPECT_EQ(vireo("predict --model a b c --tta --no-tta").exit_code, 2);
  const std::string gone = (folder_ / "gone.safetensors").string();
  const test::CommandResult missing = vireo("predict --model " + gone + " in out");
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_THAT(missing.errors, HasSubstr(gone));
}

TEST_F(PredictCommand, RunsInThePrecisionThatIsAskedForAndRecordsIt) {
  write_untrained(model_, {32, 32});
  fs::create_directories(folder_ / "in");
  put_picture("in/a.png", 40);
  const auto predict = [&](const std::string& precision) {
    return vireo("predict --no-preview --precision " + precision + " --model " + model_.string() +
                 " " + (folder_ / "in").string() + " " + (folder_ / precision).string());
  };
  for (const char* precision : {"fp32", "bf16", "int8"}) {
    EXPECT_EQ(predict(precision).exit_code, 0) << precision;
    const auto manifest = nlohmann::json::parse(read_text(folder_ / precision / "manifest.json"));
    EXPECT_EQ(manifest["settings"]["precision"], precision);
  }
  EXPECT_EQ(predict("fp8").exit_code, 2);
}

TEST_F(PredictCommand, SegmentsPicturesAndGoesOnAfterABrokenOne) {
  write_untrained(model_, {32, 32});
  fs::create_directories(folder_ / "in");
  put_picture("in/a.png", 40);
  write_text_atomically(folder_ / "in/b.png", "no picture");
  put_picture("in/c.png", 24);
  const test::CommandResult result =
      vireo("predict --model " + model_.string() + " --model " + model_.string() + " " +
            (folder_ / "in").string() + " " + (folder_ / "out").string());
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.errors, HasSubstr("1 case(s) failed"));
  EXPECT_THAT(result.errors, HasSubstr("b.png"));
  EXPECT_THAT(result.errors, HasSubstr("network"));
  EXPECT_THAT(result.output, HasSubstr("2 case(s) segmented"));
  EXPECT_EQ(read_image_header(folder_ / "out/a.png").geometry.size_zyx[1], 40);
  for (const char* name : {"c.png", "preview.png", "statistics.json", "manifest.json"})
    EXPECT_TRUE(fs::exists(folder_ / "out" / name)) << name;
  const auto manifest = nlohmann::json::parse(read_text(folder_ / "out/manifest.json"));
  EXPECT_EQ(manifest["models"].size(), 2u);
  EXPECT_EQ(manifest["command"][1], "predict");
}

TEST_F(PredictCommand, SegmentsADicomSeriesAsItDoesTheSameVolumeInNifti) {
  write_untrained(model_, {32, 32}, ChannelNormalization::Kind::kZScore);
  Geometry grid;
  grid.size_zyx = {4, 36, 28};
  grid.spacing_mm_zyx = {3, 0.8, 1.1};
  grid.origin_lps_mm = {-20, 30, -7};
  const std::vector<test::MadeSlice> slices = test::slices_of(grid, -2000);
  fs::create_directories(folder_ / "study/scan");
  // Falling file names, so that only the positions tell the order.
  for (size_t z = 0; z < slices.size(); ++z)
    test::write_slice(folder_ / "study/scan" / std::to_string(9 - z), slices[z]);
  write_text_atomically(folder_ / "study/notes.txt", "not DICOM");
  const at::Tensor values = at::arange(-2000, -2000 + grid.voxel_count(), at::kShort);
  write_image(folder_ / "twin.nii.gz", values.view({1, 4, 36, 28}), grid);

  const std::string model = "predict --model " + model_.string() + " ";
  const std::string out = (folder_ / "out").string();
  const test::CommandResult dicom = vireo(model + (folder_ / "study").string() + " " + out +
                                          " --also dicom-seg,rtstruct,seg-nrrd,pictures");
  ASSERT_EQ(dicom.exit_code, 0) << dicom.errors;
  for (const char* name :
       {"scan.seg.dcm", "scan.rtstruct.dcm", "scan.seg.nrrd", "scan_pictures/mask_0003.png"})
    EXPECT_TRUE(fs::exists(folder_ / "out" / name)) << name;
  const test::CommandResult nifti = vireo(model + (folder_ / "twin.nii.gz").string() + " " + out);
  ASSERT_EQ(nifti.exit_code, 0) << nifti.errors;
  EXPECT_THAT(
      vireo(model + (folder_ / "twin.nii.gz").string() + " " + out + " --also dicom-seg").errors,
      HasSubstr("is no DICOM image"));
  const Volume a = read_labels(folder_ / "out/scan.nii.gz");
  EXPECT_TRUE(at::equal(a.values, read_labels(folder_ / "out/scan.seg.nrrd").values));
  const Volume b = read_labels(folder_ / "out/twin.nii.gz");
  EXPECT_EQ(difference(a.geometry, b.geometry), "");
  EXPECT_TRUE(at::equal(a.values, b.values));
  const int64_t cells = at::count_nonzero(a.values).item<int64_t>();
  EXPECT_GT(cells, 0);
  EXPECT_LT(cells, a.values.numel());

  const test::CommandResult info = vireo("info " + (folder_ / "study").string());
  EXPECT_THAT(info.output, HasSubstr("scan"));
  EXPECT_THAT(info.output, HasSubstr("28, 36, 4"));
  fs::remove(folder_ / "study/scan/8");
  const test::CommandResult gap = vireo(model + (folder_ / "study").string() + " " + out);
  EXPECT_EQ(gap.exit_code, 1);
  EXPECT_THAT(gap.errors, HasSubstr("slices are missing"));
  EXPECT_EQ(
      vireo(model + "--allow resample-gaps " + (folder_ / "study").string() + " " + out).exit_code,
      0);
}

// From here on the kernel ends this process when it opens a socket.
void forbid_sockets() {
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter{sizeof program / sizeof program[0], program};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
    ::_exit(99);
}

// Runs `act` in a child without sockets; its status as waitpid gives it.
template <class Act>
int status_without_sockets(const Act& act) {
  const pid_t child = ::fork();
  if (child == 0) {
    forbid_sockets();
    act();
    ::_exit(98);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

TEST_F(PredictCommand, OpensNoSocket) {
  const int caught = status_without_sockets([] { ::socket(AF_INET, SOCK_STREAM, 0); });
  if (WIFEXITED(caught) && WEXITSTATUS(caught) == 99) VIREO_SKIP("the kernel has no seccomp");
  ASSERT_TRUE(WIFSIGNALED(caught)) << "a socket was not noticed";

  write_untrained(model_, {32, 32});
  put_picture("a.png", 40);
  const std::string vireo = test::program().string(), model = model_.string();
  const std::string input = (folder_ / "a.png").string(), output = (folder_ / "out").string();
  const int status = status_without_sockets([&] {
    ::dup2(::open("/dev/null", O_WRONLY), 2);
    ::execl(vireo.c_str(),
            "vireo",
            "predict",
            "--quiet",
            "--model",
            model.c_str(),
            input.c_str(),
            output.c_str(),
            nullptr);
  });
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_TRUE(fs::exists(folder_ / "out/a.png"));
}

TEST_F(PredictCommand, TakesAWholeLargePictureInTwoGigabytes) {
  write_untrained(model_, {1024, 1024});
  put_picture("large.png", 1024);
  const test::CommandResult result =
      vireo("predict --no-tta --batch 1 --model " + model_.string() + " " +
            (folder_ / "large.png").string() + " " + (folder_ / "out").string());
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  const auto manifest = nlohmann::json::parse(read_text(folder_ / "out/manifest.json"));
  EXPECT_LE(manifest["peak_memory_bytes"], int64_t{2} << 30);
}

// As a CT of 512 x 512 x 1000 does, on a smaller scale: many slices, many classes, little memory.
TEST_F(PredictCommand, KeepsALongScanBelowItsEstimateAndTheLimit) {
  constexpr int64_t kDepth = 400, kSide = 96;
  write_untrained(model_, {kSide, kSide}, ChannelNormalization::Kind::kZScore, 24);
  Geometry grid;
  grid.size_zyx = {kDepth, kSide, kSide};
  grid.spacing_mm_zyx = {1.5, 1, 1};
  write_image(folder_ / "long.nii.gz",
              at::randint(-1024, 1500, {1, kDepth, kSide, kSide}).to(at::kShort),
              grid);
  const std::string predict = "predict --no-tta --model " + model_.string() + " " +
                              (folder_ / "long.nii.gz").string() + " ";
  const auto run = [&](const std::string& output, const std::string& more) {
    const test::CommandResult result = vireo(predict + (folder_ / output).string() + " " + more);
    EXPECT_EQ(result.exit_code, 0) << result.errors;
    EXPECT_THAT(result.errors, HasSubstr("long: needs up to "));
    EXPECT_THAT(result.errors, HasSubstr("outside the network"));
    return nlohmann::json::parse(read_text(folder_ / output / "manifest.json"));
  };
  const auto expect_kept = [](const nlohmann::json& manifest) {
    const auto estimate = manifest["cases"][0]["memory_estimate_bytes"].get<int64_t>();
    EXPECT_LE(manifest["peak_memory_bytes"].get<int64_t>(), estimate);
    // Beside a program that holds about 0.5 GiB.
    EXPECT_LT(estimate, (int64_t{512} << 20) + 4 * 24 * kDepth * kSide * kSide);
    return estimate;
  };
  const int64_t plenty = expect_kept(run("free", ""));
  const int64_t less = expect_kept(run("tight", "--max-memory 0.625"));
  EXPECT_LE(less, int64_t{640} << 20);
  EXPECT_LT(less, plenty);
  EXPECT_TRUE(at::equal(read_labels(folder_ / "free/long.nii.gz").values,
                        read_labels(folder_ / "tight/long.nii.gz").values));

  const test::CommandResult refused =
      vireo(predict + (folder_ / "refused").string() + " --max-memory 0.1");
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.errors, HasSubstr("even slice by slice; --max-memory allows 103 MiB"));
}

TEST_F(PredictCommand, InfoTellsWhatACheckpointHolds) {
  write_untrained(model_, {32, 32});
  const test::CommandResult text = vireo("info " + model_.string());
  EXPECT_EQ(text.exit_code, 0);
  EXPECT_THAT(text.output, HasSubstr("checkpoint"));
  EXPECT_THAT(text.output, HasSubstr("rwkv_unet_t"));
  const test::CommandResult json = vireo("info --json " + model_.string());
  EXPECT_EQ(nlohmann::json::parse(json.output)["metadata"]["preparation"]["labels"].size(), 2u);
}

TEST_F(PredictCommand, InfoTellsAboutProgramAndModels) {
  EXPECT_THAT(vireo("info").output, HasSubstr("LibTorch"));
  const test::CommandResult model =
      vireo("info rwkv_unet_t --size 64 64 --channels 1 --classes 3 --json");
  EXPECT_EQ(model.exit_code, 0);
  EXPECT_GT(nlohmann::json::parse(model.output)["parameters"], 3000000);
  const test::CommandResult unknown = vireo("info no_such_thing");
  EXPECT_EQ(unknown.exit_code, 1);
  EXPECT_THAT(unknown.errors,
              HasSubstr("no_such_thing: no such file, folder or model; known models are"));
  write_text_atomically(folder_ / "table.csv", "a,b");
  const test::CommandResult table = vireo("info " + (folder_ / "table.csv").string());
  EXPECT_EQ(table.exit_code, 1);
  EXPECT_THAT(table.errors, HasSubstr("is neither an image"));
}

}  // namespace
}  // namespace vireo
