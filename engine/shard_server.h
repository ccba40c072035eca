// All images and exports of one shard.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/log.h"
#include "engine/block/switch_node.h"
#include "engine/engine.h"
#include "engine/export_version.h"
#include "engine/filter_stack.h"
#include "engine/image.h"
#include "engine/io/directory.h"
#include "engine/io/ring.h"
#include "engine/keyed_mutex.h"
#include "engine/nbd/server/budget.h"
#include "engine/nbd/server/export.h"
#include "engine/nbd/server/negotiation.h"
#include "engine/runtime/shard.h"
#include "engine/runtime/task_set.h"
#include "engine/runtime/turnstile.h"
#include "engine/runtime/worker_pool.h"

namespace gabion::engine {

// What a shard tells the listeners' shard about its exports. Called on the exporting shard;
// implementations post.
class ExportSink {
 public:
  struct Entry {
    uint64_t version_id = 0;
    nbd::ExportInfo info;
    bool enabled = true;
    Transport transport = Transport::kDefault;
    uint32_t max_connections = 0;
  };
  virtual void Publish(const std::string& export_name, Entry entry) = 0;
  virtual void ConnectionEnded(const std::string& export_name, uint64_t connection_id) = 0;

 protected:
  ~ExportSink() = default;
};

// A client that has chosen an export, on its way to the export's shard.
struct Arrival {
  uint64_t version_id = 0;
  uint64_t connection_id = 0;
  int64_t connect_time_us = 0;
  nbd::NegotiationResult result;
};

// Created, used and destroyed on its shard; Close() comes before destruction.
class ShardServer final : private Image::GrowthObserver, private StackHost {
 public:
  struct Options {
    IoDriver io_driver = IoDriver::kAuto;
    bool direct_io = false;
    ByteCount qcow2_cache{32 * kMiB};         // tables of one qcow2 image
    ByteCount qcow2_cache_total{256 * kMiB};  // of all on this shard
    NbdOptions nbd;
    uint64_t budget_bytes = 0;                    // this shard's part of max_bytes_in_flight_total
    uint64_t first_version = 1;                   // ids of export versions, unique among all shards
    SharedFilterStates* filter_states = nullptr;  // outlives the server
    // Both or none; they outlive the server. The pool has one thread.
    const io::Directory* secrets = nullptr;
    runtime::WorkerPool* key_pool = nullptr;
  };

  // kUnavailable if io_uring is required and refused.
  static absl::StatusOr<std::unique_ptr<ShardServer>> Create(runtime::Shard& shard,
                                                             runtime::WorkerPool& pool,
                                                             const Options& options,
                                                             ExportSink& sink, Logger& logger);
  ~ShardServer();

  runtime::Shard& shard() { return shard_; }
  runtime::TaskSet& tasks() { return tasks_; }
  // Told of the connections of every export; outlives this. Before the first export.
  void SetObserver(const Observer* observer) { observer_ = observer; }
  // Empty with io_uring; else why not.
  const std::string& ring_refused() const { return ring_refused_; }
  bool has_ring() const { return ring_ != nullptr; }

  // `pools` has those of all images that the spec names, and outlives the call.
  Task<absl::StatusOr<ExportState>> CreateExport(ExportSpec spec, const Pools& pools);
  Task<absl::StatusOr<ExportState>> UpdateExport(ExportSpec spec, const Pools& pools);
  // `spec` against the served export of that name, or against its image if there is none. Nothing
  // else is done with that export meanwhile.
  Task<absl::StatusOr<ExportState>> CheckExport(ExportSpec spec, const Pools& pools);
  Task<absl::Status> DeleteExport(std::string name, DeleteMode mode);
  Task<absl::StatusOr<ExportState>> GetExport(std::string name);
  Task<std::vector<absl::StatusOr<ExportState>>> GetExports(std::vector<std::string> names);
  Task<absl::StatusOr<std::vector<ConnectionState>>> ListConnections(std::string name);
  Task<absl::Status> CloseConnection(std::string name, uint64_t id);
  Task<absl::StatusOr<std::vector<FilterStatistics>>> GetFilterStatistics(std::string name);

  // What others than clients do with an export, as if they were one.
  class Look {
   public:
    // What it sees stays as it is until it is done.
    virtual Task<absl::Status> Do(const nbd::ExportVersion& version, const FilterStack& stack,
                                  Image& image) = 0;

   protected:
    ~Look() = default;
  };
  // Lets `look`, which stays valid, at what clients of the export now get, between changes of its
  // filters. kNotFound if it is another export of that name than `incarnation`, or going away.
  Task<absl::Status> LookAt(const std::string& name, uint64_t incarnation, Look& look);
  struct Seen {
    uint64_t incarnation = 0;
    ByteCount size;
    ByteCount content_size;
    uint32_t granule = 1;
    bool writable = false;
  };
  absl::StatusOr<Seen> See(const std::string& name);

  // The files that are open for these images; nothing for one that is not open here.
  struct OpenFile {
    FileId file;
    absl::Status health;  // Image::health()
  };
  Task<std::vector<std::optional<OpenFile>>> OpenFiles(std::span<const ImageSpec* const> specs);
  Task<absl::StatusOr<ImageInfo>> GrowImage(ImageSpec spec, ByteCount size,
                                            const io::Directory* pool);
  Task<absl::Status> ShrinkImage(ImageSpec spec, ByteCount size, const io::Directory* pool);
  Task<absl::StatusOr<CheckReport>> CheckImage(ImageSpec spec, ImageRepair repair,
                                               CheckControl* control, const io::Directory* pool);
  // Fails with IMAGE_IN_USE if this incarnation of the image is open.
  Task<absl::Status> CheckUnused(ImageSpec spec);

  // Opens the image and counts a user, until ReleaseImage().
  Task<absl::StatusOr<Image*>> AcquireImage(ImageSpec spec, const io::Directory* pool,
                                            ImageUse use) override;
  Task<void> ReleaseImage(Image* image, ImageUse use) override;
  runtime::Workers& workers() override { return workers_; }
  // Serves the connection behind `stream`, which must live on this shard.
  void Admit(const std::string& export_name, Arrival arrival, std::unique_ptr<io::Stream> stream);

  // Nobody waits in a filter on purpose any more: Close() will come.
  void Hurry();

  // Ends every connection and closes every export and image.
  Task<absl::Status> Close();

 private:
  // The nodes come before the export that stands on them.
  struct Served final : nbd::Export::Observer {
    Served(ShardServer& in_server, Image& of_image, uint64_t number)
        : server(in_server),
          image(&of_image),
          incarnation(number),
          top(of_image.root()),
          exported(in_server.environment_, in_server.session_limits_),
          looking(in_server.shard_.reactor().ready()) {
      exported.SetObserver(this);
    }
    void OnConnectionBegun(const nbd::SessionReport& report) override;
    void OnConnectionEnded(uint64_t id) override;

    ShardServer& server;
    ExportSpec spec;
    Image* const image;
    ImageUse use = ImageUse::kRead;
    const uint64_t incarnation;
    std::unique_ptr<FilterStack> stack;
    block::SwitchNode top;  // what all versions stand on
    nbd::Export exported;
    runtime::Turnstile looking;
  };

  ShardServer(runtime::Shard& shard, runtime::WorkerPool& pool, const Options& options,
              ExportSink& sink, Logger& logger);

  void OnImageGrown(Image& image) override;
  void ShowGrowth(Served& served);
  Task<absl::Status> MakeRoom(FilterStack& stack, const std::string& name);
  Task<void> GrowScratch(std::string name, uint64_t incarnation);

  Task<absl::StatusOr<std::unique_ptr<block::Node>>> NewScratchFile(const io::Directory* pool,
                                                                    ByteCount size) override;
  Task<absl::Status> ChangeUse(Image* image, ImageUse from, ImageUse to) override;

  absl::StatusOr<std::unique_ptr<io::File>> NewFile(io::UniqueFd fd);
  Task<absl::StatusOr<std::unique_ptr<Image>>> OpenImage(ImageSpec spec, const io::Directory* pool);
  Task<absl::Status> OpenFormat(const ImageSpec& spec, const io::Directory* pool,
                                std::unique_ptr<io::File> file, Image::Parts& parts);
  Task<void> CloseImage(Image* image);
  Task<void> ReleaseBacking(Image* backing);
  absl::Status InUse(const std::string& image_name) const;
  absl::StatusOr<Served*> Find(const std::string& name);
  // `before`: the stack of the export that is served, or null.
  Task<absl::StatusOr<std::unique_ptr<FilterStack>>> BuildStack(const ExportSpec& spec,
                                                                Image& image, uint64_t incarnation,
                                                                const Pools& pools,
                                                                const FilterStack* before);
  // Puts `next` in place of the export's filters, and publishes what comes of it.
  Task<absl::Status> ExchangeStack(Served& served, std::unique_ptr<FilterStack> next);
  // Whether the clients that are connected can go on if the export becomes `spec`, with `next`
  // below.
  absl::Status CheckFits(const Served& served, const ExportSpec& spec, FilterStack& next) const;
  Task<absl::Status> PublishChange(Served& served, const ExportSpec& before, const Pools& pools);
  // With the image's use allowing the change.
  Task<absl::Status> ChangeServed(Served& served, ExportSpec spec, const Pools& pools);
  // The image as CheckExport() needs it: as the export would, if there is none.
  Task<absl::StatusOr<ImageUse>> AcquireForCheck(const ExportSpec& spec, const Served* served,
                                                 const Pools& pools, Image*& image);
  absl::StatusOr<ExportState> CheckVersion(const ExportSpec& spec, const Served* served,
                                           FilterStack& stack);
  absl::Status PublishVersion(Served& served);
  ExportState StateOf(const Served& served) const;
  // As if `version` were the current one.
  ExportState StateOf(const Served& served, const nbd::ExportVersion& version) const;
  ExportState StateOf(const nbd::ExportVersion& version) const;

  runtime::Shard& shard_;
  const Options options_;
  ExportSink& sink_;
  Logger& logger_;
  const Observer* observer_ = nullptr;
  runtime::Workers workers_;
  std::optional<runtime::Workers> key_workers_;
  std::optional<KeySurroundings> keys_;  // none: no encrypted disks
  std::unique_ptr<io::Ring> ring_;       // null: files go through the worker pool
  std::string ring_refused_;
  nbd::ByteBudget budget_;
  const nbd::SessionEnvironment environment_;
  const nbd::SessionLimits session_limits_;
  runtime::TaskSet tasks_;
  KeyedMutex opening_;  // by image name
  qcow2::CacheBudget qcow2_budget_;
  std::map<std::string, std::unique_ptr<Image>> images_;
  std::map<std::string, std::unique_ptr<Served>> exports_;
  uint64_t next_version_;
};

}  // namespace gabion::engine
