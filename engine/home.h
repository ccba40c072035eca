// The first shard's extra work: which exports there are and where, the listeners, and the
// handshakes of all connections.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/io/asio_listener.h"
#include "engine/io/directory.h"
#include "engine/keyed_mutex.h"
#include "engine/nbd/server/budget.h"
#include "engine/nbd/server/negotiation.h"
#include "engine/runtime/shard.h"
#include "engine/runtime/task_set.h"
#include "engine/shard_server.h"

namespace gabion::engine {

// Created, used and destroyed on the home shard, but for ExportSink, which other shards call.
// Close() comes before destruction.
class Home final : public ExportSink {
 public:
  Home(runtime::Shard& shard, runtime::WorkerPool& pool, const NbdOptions& options, Logger& logger);
  ~Home();

  // Tells where the shards are; once, before anything else.
  void SetServers(std::vector<ShardServer*> servers) { servers_ = std::move(servers); }
  // Accepts connections from now on; once for each kind.
  void Listen(io::ListenSocket socket, bool tcp);

  absl::Status AddPool(std::string name, std::unique_ptr<io::Directory> directory);
  Task<absl::StatusOr<PoolInfo>> GetPool(std::string name);

  Task<absl::StatusOr<ImageInfo>> CreateImage(ImageSpec spec, ByteCount size);
  Task<absl::StatusOr<ImageInfo>> ImportImage(ImageSpec spec, std::string source_file, bool move);
  Task<absl::StatusOr<ImageInfo>> StatImage(ImageSpec spec);
  Task<std::vector<absl::StatusOr<ImageInfo>>> StatImages(std::vector<ImageSpec> specs);
  Task<absl::Status> CheckSize(std::string pool_name, ByteCount size);
  Task<absl::StatusOr<ImageInfo>> GrowImage(ImageSpec spec, ByteCount size);
  Task<absl::StatusOr<ImageInfo>> ShrinkImage(ImageSpec spec, ByteCount size);
  Task<absl::StatusOr<CheckReport>> CheckImage(ImageSpec spec, ImageRepair repair,
                                               CheckControl* control);
  Task<absl::Status> DeleteImage(ImageSpec spec);
  Task<absl::StatusOr<BuildProgress>> BuildImage(ImageBuild build, ByteOffset from,
                                                 ByteCount budget);
  Task<absl::StatusOr<BuildProgress>> CheckBuild(ImageBuild build);
  Task<absl::StatusOr<RemovalProgress>> RemoveImage(ImageSpec spec, ByteCount budget);
  Task<absl::Status> CheckRemoval(ImageSpec spec);
  Task<absl::StatusOr<std::vector<std::string>>> SweepPool(std::string name,
                                                           std::vector<std::string> keep_uids);

  Task<absl::StatusOr<ExportState>> CreateExport(ExportSpec spec);
  Task<absl::StatusOr<ExportState>> UpdateExport(ExportSpec spec);
  Task<absl::StatusOr<ExportState>> CheckExport(ExportSpec spec);
  Task<absl::Status> DeleteExport(std::string name, DeleteMode mode);
  Task<absl::StatusOr<ExportState>> GetExport(std::string name);
  Task<std::vector<absl::StatusOr<ExportState>>> GetExports(std::vector<std::string> names);
  Task<absl::StatusOr<std::vector<ConnectionState>>> ListConnections(std::string name);
  Task<absl::Status> CloseConnection(std::string name, uint64_t id);
  Task<absl::StatusOr<std::vector<FilterStatistics>>> GetFilterStatistics(std::string name);
  Task<absl::StatusOr<std::unique_ptr<Target>>> OpenTarget(std::string export_name);

  // A call to every shard.
  Task<absl::Status> Ping();

  // Where the image is, or would be, open. Thread-safe.
  ShardServer& ServerOf(const std::string& image_name) const;
  // For targets.
  Task<absl::StatusOr<const io::Directory*>> FindPool(const std::string& name);

  // Stops listening, ends handshakes, and waits for every task here.
  Task<void> Close();

  runtime::TaskSet& tasks() { return tasks_; }

  // ExportSink
  void Publish(const std::string& export_name, Entry entry) override;
  void ConnectionEnded(const std::string& export_name, uint64_t connection_id) override;

 private:
  struct Known {
    std::string nbd_name;
    std::string image_name;
    std::string pool;
    Entry entry;
    bool published = false;  // clients may find it
    uint32_t connections = 0;
  };

  // What one client may see; remembers which version of an export it was told last.
  class Directory final : public nbd::ExportDirectory {
   public:
    Directory(Home& home, bool tcp) : home_(home), tcp_(tcp) {}
    absl::StatusOr<nbd::ExportInfo> Find(const std::string& name) override;
    std::vector<nbd::ListedExport> List(const std::string* after) override;
    uint64_t told_version() const { return told_version_; }

   private:
    Home& home_;
    const bool tcp_;
    uint64_t told_version_ = 0;
  };

  class Door final : public io::Listener::Handler {
   public:
    Door(Home& home, bool tcp) : home_(home), tcp_(tcp) {}
    void OnConnection(io::UniqueFd socket) override;

   private:
    Home& home_;
    const bool tcp_;
  };

  Task<void> Receive(io::UniqueFd socket, bool tcp);
  // `told_version`: what the client was told about, which may have been replaced while it was slow
  // to take the answer.
  absl::Status HandOver(nbd::NegotiationResult result, uint64_t told_version, io::UniqueFd socket,
                        std::unique_ptr<io::Stream> stream);
  void EndConnection(const std::string& export_name);
  Known* FindByWireName(const std::string& nbd_name);
  static bool Visible(const Known& known, bool tcp);
  absl::StatusOr<const io::Directory*> PoolOf(const std::string& name) const;
  absl::StatusOr<Pools> PoolsOf(const ExportSpec& spec) const;
  absl::StatusOr<ShardServer*> ServerOfExport(const std::string& export_name) const;
  Task<absl::Status> CheckUnused(const ImageSpec& spec);
  Task<void> CompareWithOpen(const std::vector<ImageSpec>& specs,
                             std::vector<absl::StatusOr<ImageInfo>>& infos);
  absl::Status CheckNames(const ExportSpec& spec) const;

  runtime::Shard& shard_;
  runtime::Workers workers_;
  const NbdOptions options_;
  Logger& logger_;
  std::vector<ShardServer*> servers_;
  std::map<std::string, std::unique_ptr<io::Directory>> pools_;
  std::map<std::string, Known> exports_;
  std::map<std::string, std::string> by_wire_name_;  // nbd_name -> export name
  nbd::ConnectionSlots slots_;
  std::vector<io::Stream*> negotiating_;
  Door unix_door_;
  Door tcp_door_;
  std::vector<std::unique_ptr<io::Listener>> listeners_;
  KeyedMutex export_turn_;
  KeyedMutex image_turn_;
  runtime::TaskSet tasks_;
  uint64_t next_connection_ = 1;
  bool closing_ = false;
};

}  // namespace gabion::engine
