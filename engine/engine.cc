#include "engine/engine.h"

#include <unistd.h>

#include <algorithm>
#include <latch>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "engine/call_on.h"
#include "engine/home.h"
#include "engine/io/listen_socket.h"
#include "engine/runtime/shard.h"
#include "engine/runtime/worker_pool.h"
#include "engine/shard_server.h"
#include "engine/target.h"

namespace gabion::engine {
namespace {

constexpr std::size_t kWorkers = 4;

template <typename T>
Task<void> Answer(Task<T> task, Callback<T> done) {
  T result = co_await task;
  std::move(done)(std::move(result));
}

// Runs `work` on `shard` and waits for it, from outside.
template <typename F>
void RunOn(runtime::Shard& shard, F work) {
  std::latch done(1);
  shard.Post([&] {
    work();
    done.count_down();
  });
  done.wait();
}

uint32_t ShardCount(uint32_t wanted) {
  if (wanted > 0) return wanted;
  const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
  return static_cast<uint32_t>(std::max(1L, cpus - 1));
}

class EngineImpl final : public Engine {
 public:
  EngineImpl(EngineOptions options, Logger& logger)
      : options_(std::move(options)), logger_(logger), workers_("gabion-io", kWorkers) {}

  ~EngineImpl() override { CHECK(shards_.empty()); }

  absl::Status Start() {
    RETURN_IF_ERROR(OpenSecrets());
    StartShards();
    absl::Status status = StartServers();
    if (status.ok()) status = Listen();
    if (!status.ok()) Stop();
    return status;
  }

  EngineInfo info() const override { return info_; }

  void Ping(Callback<absl::Status> done) override {
    Dispatch(std::move(done), [this] { return home_->Ping(); });
  }

  void SetObserver(Observer observer) override {
    observer_ = std::move(observer);
    for (std::size_t i = 0; i < servers_.size(); ++i) {
      RunOn(*shards_[i], [&] { servers_[i]->SetObserver(&observer_); });
    }
  }

  absl::Status AddPool(const std::string& name, const std::string& directory) override {
    absl::StatusOr<io::Directory> opened = io::Directory::Open(directory);
    if (!opened.ok()) return Annotate(opened.status(), name);
    auto pool = std::make_unique<io::Directory>(*std::move(opened));
    absl::Status status;
    RunOn(*shards_[0], [&] { status = home_->AddPool(name, std::move(pool)); });
    return status;
  }

  void GetPool(std::string name, Callback<absl::StatusOr<PoolInfo>> done) override {
    Dispatch(std::move(done),
             [this, name = std::move(name)]() mutable { return home_->GetPool(std::move(name)); });
  }

  void CreateImage(ImageSpec spec, ByteCount size,
                   Callback<absl::StatusOr<ImageInfo>> done) override {
    Dispatch(std::move(done), [this, spec = std::move(spec), size]() mutable {
      return home_->CreateImage(std::move(spec), size);
    });
  }

  void ImportImage(ImageSpec spec, std::string source_file, bool move,
                   Callback<absl::StatusOr<ImageInfo>> done) override {
    Dispatch(std::move(done),
             [this, spec = std::move(spec), source = std::move(source_file), move]() mutable {
               return home_->ImportImage(std::move(spec), std::move(source), move);
             });
  }

  void StatImage(ImageSpec spec, Callback<absl::StatusOr<ImageInfo>> done) override {
    Dispatch(std::move(done), [this, spec = std::move(spec)]() mutable {
      return home_->StatImage(std::move(spec));
    });
  }

  void StatImages(std::vector<ImageSpec> specs,
                  Callback<std::vector<absl::StatusOr<ImageInfo>>> done) override {
    Dispatch(std::move(done), [this, specs = std::move(specs)]() mutable {
      return home_->StatImages(std::move(specs));
    });
  }

  void CheckSize(std::string pool, ByteCount size, Callback<absl::Status> done) override {
    Dispatch(std::move(done), [this, pool = std::move(pool), size]() mutable {
      return home_->CheckSize(std::move(pool), size);
    });
  }

  void BuildImage(ImageBuild build, ByteOffset from, ByteCount budget,
                  Callback<absl::StatusOr<BuildProgress>> done) override {
    Dispatch(std::move(done), [this, build = std::move(build), from, budget]() mutable {
      return home_->BuildImage(std::move(build), from, budget);
    });
  }

  void CheckBuild(ImageBuild build, Callback<absl::StatusOr<BuildProgress>> done) override {
    Dispatch(std::move(done), [this, build = std::move(build)]() mutable {
      return home_->CheckBuild(std::move(build));
    });
  }

  void RemoveImage(ImageSpec spec, ByteCount budget,
                   Callback<absl::StatusOr<RemovalProgress>> done) override {
    Dispatch(std::move(done), [this, spec = std::move(spec), budget]() mutable {
      return home_->RemoveImage(std::move(spec), budget);
    });
  }

  void CheckRemoval(ImageSpec spec, Callback<absl::Status> done) override {
    Dispatch(std::move(done), [this, spec = std::move(spec)]() mutable {
      return home_->CheckRemoval(std::move(spec));
    });
  }

  void SweepPool(std::string pool, std::vector<std::string> keep_uids,
                 Callback<absl::StatusOr<std::vector<std::string>>> done) override {
    Dispatch(std::move(done),
             [this, pool = std::move(pool), keep = std::move(keep_uids)]() mutable {
               return home_->SweepPool(std::move(pool), std::move(keep));
             });
  }

  void GrowImage(ImageSpec spec, ByteCount size,
                 Callback<absl::StatusOr<ImageInfo>> done) override {
    Dispatch(std::move(done), [this, spec = std::move(spec), size]() mutable {
      return home_->GrowImage(std::move(spec), size);
    });
  }

  void ShrinkImage(ImageSpec spec, ByteCount size,
                   Callback<absl::StatusOr<ImageInfo>> done) override {
    Dispatch(std::move(done), [this, spec = std::move(spec), size]() mutable {
      return home_->ShrinkImage(std::move(spec), size);
    });
  }

  void CheckImage(ImageSpec spec, ImageRepair repair, CheckControl* control,
                  Callback<absl::StatusOr<CheckReport>> done) override {
    Dispatch(std::move(done), [this, spec = std::move(spec), repair, control]() mutable {
      return home_->CheckImage(std::move(spec), repair, control);
    });
  }

  void DeleteImage(ImageSpec spec, Callback<absl::Status> done) override {
    Dispatch(std::move(done), [this, spec = std::move(spec)]() mutable {
      return home_->DeleteImage(std::move(spec));
    });
  }

  void CreateExport(ExportSpec spec, Callback<absl::StatusOr<ExportState>> done) override {
    Dispatch(std::move(done), [this, spec = std::move(spec)]() mutable {
      return home_->CreateExport(std::move(spec));
    });
  }

  void UpdateExport(ExportSpec spec, Callback<absl::StatusOr<ExportState>> done) override {
    Dispatch(std::move(done), [this, spec = std::move(spec)]() mutable {
      return home_->UpdateExport(std::move(spec));
    });
  }

  void CheckExport(ExportSpec spec, Callback<absl::StatusOr<ExportState>> done) override {
    Dispatch(std::move(done), [this, spec = std::move(spec)]() mutable {
      return home_->CheckExport(std::move(spec));
    });
  }

  void DeleteExport(std::string name, DeleteMode mode, Callback<absl::Status> done) override {
    Dispatch(std::move(done), [this, name = std::move(name), mode]() mutable {
      return home_->DeleteExport(std::move(name), mode);
    });
  }

  void GetExport(std::string name, Callback<absl::StatusOr<ExportState>> done) override {
    Dispatch(std::move(done), [this, name = std::move(name)]() mutable {
      return home_->GetExport(std::move(name));
    });
  }

  void GetFilterStatistics(std::string export_name,
                           Callback<absl::StatusOr<std::vector<FilterStatistics>>> done) override {
    Dispatch(std::move(done), [this, name = std::move(export_name)]() mutable {
      return home_->GetFilterStatistics(std::move(name));
    });
  }

  void GetExports(std::vector<std::string> names,
                  Callback<std::vector<absl::StatusOr<ExportState>>> done) override {
    Dispatch(std::move(done), [this, names = std::move(names)]() mutable {
      return home_->GetExports(std::move(names));
    });
  }

  void ListConnections(std::string export_name,
                       Callback<absl::StatusOr<std::vector<ConnectionState>>> done) override {
    Dispatch(std::move(done), [this, name = std::move(export_name)]() mutable {
      return home_->ListConnections(std::move(name));
    });
  }

  void CloseConnection(std::string export_name, uint64_t id, Callback<absl::Status> done) override {
    Dispatch(std::move(done), [this, name = std::move(export_name), id]() mutable {
      return home_->CloseConnection(std::move(name), id);
    });
  }

  void OpenImageTarget(ImageSpec spec, bool writable,
                       Callback<absl::StatusOr<std::unique_ptr<Target>>> done) override {
    Dispatch(std::move(done), [this, spec = std::move(spec), writable]() mutable {
      return OpenAt(std::move(spec), writable);
    });
  }

  void OpenExportTarget(std::string export_name,
                        Callback<absl::StatusOr<std::unique_ptr<Target>>> done) override {
    Dispatch(std::move(done), [this, name = std::move(export_name)]() mutable {
      return home_->OpenTarget(std::move(name));
    });
  }

  void Stop() override;

 private:
  absl::Status OpenSecrets();
  void StartShards();
  absl::Status StartServers();
  absl::Status Listen();

  // `start` runs on the home shard and returns a Task<T>.
  template <typename T, typename F>
  void Dispatch(Callback<T> done, F start) {
    shards_[0]->Post([this, done = std::move(done), start = std::move(start)]() mutable {
      home_->tasks().Add(Answer<T>(start(), std::move(done)));
    });
  }

  Task<absl::StatusOr<std::unique_ptr<Target>>> OpenAt(ImageSpec image, bool writable) {
    CO_ASSIGN_OR_RETURN(const io::Directory* const pool, co_await home_->FindPool(image.pool));
    ShardServer& server = home_->ServerOf(image.name);
    auto call = [&server, &image, writable, pool] {
      return MakeImageTarget(server, image, writable, pool);
    };
    absl::StatusOr<std::unique_ptr<Target>> target =
        co_await CallOn(*shards_[0], server.shard(), server.tasks(), call);
    co_return target;
  }

  const EngineOptions options_;
  Logger& logger_;
  Observer observer_;                 // not changed while there are exports
  SharedFilterStates filter_states_;  // outlives the servers
  std::optional<io::Directory> secrets_;
  runtime::WorkerPool workers_;
  std::unique_ptr<runtime::WorkerPool> key_workers_;  // where there are secrets
  std::vector<std::unique_ptr<runtime::Shard>> shards_;
  std::unique_ptr<Home> home_;                         // on shards_[0]
  std::vector<std::unique_ptr<ShardServer>> servers_;  // each on its shard
  EngineInfo info_;
};

absl::Status EngineImpl::OpenSecrets() {
  if (options_.secrets_directory.empty()) return absl::OkStatus();
  absl::StatusOr<io::Directory> opened = io::Directory::Open(options_.secrets_directory);
  if (!opened.ok()) return Annotate(opened.status(), "the directory of secrets");
  secrets_.emplace(*std::move(opened));
  key_workers_ = std::make_unique<runtime::WorkerPool>("gabion-key", 1);
  return absl::OkStatus();
}

void EngineImpl::StartShards() {
  const uint32_t count = ShardCount(options_.shards);
  for (uint32_t i = 0; i < count; ++i) {
    shards_.push_back(std::make_unique<runtime::Shard>(
        absl::StrCat("gabion-", i),
        runtime::Shard::Options{.reactor = {.poll_before_sleep = options_.poll_before_sleep}}));
  }
  info_.shards = count;
  RunOn(*shards_[0],
        [this] { home_ = std::make_unique<Home>(*shards_[0], workers_, options_.nbd, logger_); });
}

absl::Status EngineImpl::StartServers() {
  ShardServer::Options options;
  options.io_driver = options_.io_driver;
  options.direct_io = options_.direct_io;
  options.qcow2_cache = options_.qcow2_cache_per_image;
  options.qcow2_cache_total.value = options_.qcow2_cache.value / shards_.size();
  options.nbd = options_.nbd;
  options.filter_states = &filter_states_;
  options.secrets = secrets_.has_value() ? &*secrets_ : nullptr;
  options.key_pool = key_workers_.get();
  options.budget_bytes = options_.nbd.max_bytes_in_flight_total.value / shards_.size();
  for (const auto& shard : shards_) {
    absl::StatusOr<std::unique_ptr<ShardServer>> server = absl::UnknownError("");
    RunOn(*shard,
          [&] { server = ShardServer::Create(*shard, workers_, options, *home_, logger_); });
    RETURN_IF_ERROR(server.status());
    servers_.push_back(*std::move(server));
    options.first_version += uint64_t{1} << 48;
  }
  info_.io_driver = servers_[0]->has_ring() ? "io_uring" : "threads";
  info_.io_driver_reason = servers_[0]->ring_refused();
  std::vector<ShardServer*> servers;
  for (const auto& server : servers_) servers.push_back(server.get());
  RunOn(*shards_[0], [&] { home_->SetServers(std::move(servers)); });
  return absl::OkStatus();
}

absl::Status EngineImpl::Listen() {
  const NbdOptions& nbd = options_.nbd;
  if (!nbd.unix_path.empty()) {
    ASSIGN_OR_RETURN(io::ListenSocket socket, io::ListenSocket::Unix(nbd.unix_path, nbd.unix_mode));
    info_.nbd_unix_path = nbd.unix_path;
    RunOn(*shards_[0], [&] { home_->Listen(std::move(socket), /*tcp=*/false); });
  }
  if (!nbd.tcp_host.empty()) {
    ASSIGN_OR_RETURN(io::ListenSocket socket, io::ListenSocket::Tcp(nbd.tcp_host, nbd.tcp_port));
    info_.nbd_tcp_address = socket.address();
    RunOn(*shards_[0], [&] { home_->Listen(std::move(socket), /*tcp=*/true); });
  }
  return absl::OkStatus();
}

Task<void> CloseHome(Home* home, std::latch* done) {
  co_await home->Close();
  done->count_down();
}

Task<void> CloseServer(ShardServer* server, Logger* logger, std::latch* done) {
  const absl::Status status = co_await server->Close();
  if (!status.ok()) {
    logger->Log(LogLevel::kError, "engine", absl::StrCat("closing: ", status.message()));
  }
  done->count_down();
}

void EngineImpl::Stop() {
  if (shards_.empty()) return;
  filter_states_.closing.store(true, std::memory_order_relaxed);
  for (std::size_t i = 0; i < servers_.size(); ++i) {
    RunOn(*shards_[i], [&] { servers_[i]->Hurry(); });
  }
  // Kept here, not in a TaskSet: they wait for those.
  std::vector<Task<void>> closing(shards_.size() + 1);
  std::latch home_closed(1);
  shards_[0]->Post([&] { closing[0] = CloseHome(home_.get(), &home_closed); });
  home_closed.wait();
  for (std::size_t i = 0; i < servers_.size(); ++i) {
    std::latch closed(1);
    shards_[i]->Post(
        [&, i] { closing[i + 1] = CloseServer(servers_[i].get(), &logger_, &closed); });
    closed.wait();
  }
  for (std::size_t i = 0; i < shards_.size(); ++i) {
    RunOn(*shards_[i], [&, i] {
      closing[i + 1] = Task<void>();
      if (i < servers_.size()) servers_[i].reset();
      if (i > 0) return;
      closing[0] = Task<void>();
      home_.reset();
    });
  }
  for (const auto& shard : shards_) shard->Stop();
  shards_.clear();
  servers_.clear();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Start(EngineOptions options, Logger& logger) {
  auto engine = std::make_unique<EngineImpl>(std::move(options), logger);
  RETURN_IF_ERROR(engine->Start());
  return std::unique_ptr<Engine>(std::move(engine));
}

}  // namespace gabion::engine
