// The whole data plane in one process, with a pool of its own and libnbd as the client.
#pragma once

#include <gtest/gtest.h>
#include <libnbd.h>
#include <stdlib.h>

#include <chrono>
#include <filesystem>
#include <future>
#include <memory>
#include <string>
#include <utility>

#include "engine/engine.h"

namespace gabion::engine {

namespace fs = std::filesystem;

// Calls that take a callback, made to wait: the test's thread is not the engine's.
template <typename T, typename F>
T Wait(F start) {
  std::promise<T> promise;
  std::future<T> future = promise.get_future();
  start(Callback<T>([&promise](T value) { promise.set_value(std::move(value)); }));
  return future.get();
}

struct CloseNbd {
  void operator()(nbd_handle* handle) const { nbd_close(handle); }
};
using Nbd = std::unique_ptr<nbd_handle, CloseNbd>;

// The parameter is the number of shards.
class EngineTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  void SetUp() override {
    char name[] = "/tmp/gabion-engine-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    directory_ = name;
    fs::create_directory(directory_ / "images");
    Start();
  }

  void TearDown() override {
    Stop();
    fs::remove_all(directory_);
  }

  void Start() {
    EngineOptions options;
    options.shards = GetParam();
    options.nbd.unix_path = directory_ / "nbd.sock";
    options.nbd.handshake_timeout = std::chrono::seconds(30);
    absl::StatusOr<std::unique_ptr<Engine>> engine = Engine::Start(options, NullLogger());
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
    ASSERT_TRUE(engine_->AddPool("pools/default", directory_ / "images").ok());
  }

  void Stop() {
    if (engine_ == nullptr) return;
    engine_->Stop();
    engine_.reset();
  }

  static ImageSpec Image(const std::string& id) {
    ImageSpec spec;
    spec.name = "images/" + id;
    spec.uid = "uid-" + id;
    spec.pool = "pools/default";
    spec.file_name = id + ".raw";
    return spec;
  }

  absl::StatusOr<ImageInfo> CreateImage(const std::string& id, uint64_t size) {
    return Wait<absl::StatusOr<ImageInfo>>(
        [&](auto done) { engine_->CreateImage(Image(id), ByteCount{size}, std::move(done)); });
  }

  static ExportSpec Export(const std::string& id, const std::string& image) {
    ExportSpec spec;
    spec.name = "exports/" + id;
    spec.nbd_name = id;
    spec.description = "the export " + id;
    spec.image = Image(image);
    return spec;
  }

  absl::StatusOr<ExportState> CreateExport(ExportSpec spec) {
    return Wait<absl::StatusOr<ExportState>>(
        [&](auto done) { engine_->CreateExport(std::move(spec), std::move(done)); });
  }

  absl::StatusOr<ExportState> UpdateExport(ExportSpec spec) {
    return Wait<absl::StatusOr<ExportState>>(
        [&](auto done) { engine_->UpdateExport(std::move(spec), std::move(done)); });
  }

  absl::Status DeleteExport(const std::string& name, DeleteMode mode) {
    return Wait<absl::Status>(
        [&](auto done) { engine_->DeleteExport(name, mode, std::move(done)); });
  }

  std::string Uri(const std::string& id) const {
    return "nbd+unix:///" + id + "?socket=" + (directory_ / "nbd.sock").string();
  }

  Nbd Connect(const std::string& id) const {
    Nbd nbd(nbd_create());
    nbd_add_meta_context(nbd.get(), "base:allocation");
    if (nbd_connect_uri(nbd.get(), Uri(id).c_str()) != 0) return nullptr;
    return nbd;
  }

  fs::path directory_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace gabion::engine
