// The data plane as the control plane sees it. Start reading the engine here.
//
// Every call is thread-safe and returns at once; the answer comes through a callback, once, on a
// thread of the engine, where it must not block. The engine keeps no durable state: whoever uses it
// tells it, after every start, which pools, images and exports there are. Errors carry a
// machine-readable reason where the API has one (base/reason.h).
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/log.h"
#include "engine/base/units.h"
#include "engine/block/block_sizes.h"
#include "engine/block/extent.h"
#include "engine/explanation.h"
#include "engine/filter_spec.h"
#include "engine/image_check.h"
#include "engine/image_spec.h"

namespace gabion::engine {

template <typename T>
using Callback = absl::AnyInvocable<void(T) &&>;

enum class IoDriver {
  kAuto,     // io_uring where the host allows it, else threads
  kIoUring,  // refuse to start without io_uring
  kThreads,
};

struct NbdOptions {
  std::string unix_path;      // empty: no Unix socket
  uint32_t unix_mode = 0600;  // permission bits of the socket
  std::string tcp_host;       // empty: no TCP; a literal address, e.g. "127.0.0.1"
  uint16_t tcp_port = 10809;  // 0: the system chooses; see EngineInfo
  std::chrono::milliseconds handshake_timeout{10'000};
  uint32_t max_connections = 1024;        // all exports and unfinished handshakes together
  uint32_t max_handshakes = 128;          // unfinished ones: nobody knows yet who that is
  uint32_t max_requests_in_flight = 128;  // per connection
  ByteCount max_bytes_in_flight{
      64 * kMiB};  // payload per connection; at least the largest payload of an export
  ByteCount max_bytes_in_flight_total{kGiB};  // payload of all connections
};

struct EngineOptions {
  uint32_t shards = 0;  // threads of the data plane; 0: one per CPU less one, at least one
  IoDriver io_driver = IoDriver::kAuto;
  std::chrono::microseconds poll_before_sleep{50};
  bool direct_io = false;                      // O_DIRECT for the files of raw images
  ByteCount qcow2_cache_per_image{32 * kMiB};  // tables of one qcow2 image
  ByteCount qcow2_cache{256 * kMiB};           // of all of them
  // Where the files are that luks filters name; empty: there are no such filters.
  std::string secrets_directory;
  NbdOptions nbd;
};

struct EngineInfo {
  std::string io_driver;         // "io_uring" or "threads"
  std::string io_driver_reason;  // why not io_uring; empty if it is
  uint32_t shards = 0;
  std::string nbd_unix_path;
  std::string nbd_tcp_address;  // "127.0.0.1:10809"; empty if off
};

struct PoolInfo {
  ByteCount size;       // of the file system
  ByteCount available;  // to this process
  bool punch_holes = false;
  bool direct_io = false;
};

enum class Transport { kDefault, kPlaintextUnix, kPlaintextTcp };

struct ExportSpec {
  std::string name;      // exports/{export}
  std::string nbd_name;  // as clients ask for it; unique among the exports of the engine
  std::string description;
  ImageSpec image;
  bool read_only = false;
  bool enabled = true;  // false: absent from LIST, INFO and GO
  block::BlockSizePolicy block_sizes;
  bool allocation_depth = false;  // offer the contexts of nbd/protocol/meta_context.h, too
  Transport transport = Transport::kDefault;  // kDefault: Unix socket only; kPlaintextTcp: both
  uint32_t max_connections = 0;               // 0: no limit of its own
  uint64_t generation = 0;                    // of the resource; shown by connections
  std::vector<FilterEntry> filters;           // the first is next to the clients
  // How long a change of `filters` may hold requests back until those in flight are done.
  std::chrono::milliseconds quiesce_timeout{5000};
};

struct ExportState {
  block::EffectiveBlockSizes effective;  // what new connections are told
  uint32_t connection_count = 0;
  uint64_t generation = 0;       // the spec that is in force for new connections
  bool sizes_propagated = true;  // no connection was told other sizes than `effective`
  bool read_only_propagated = true;
};

struct ConnectionState {
  uint64_t id = 0;  // never reused while the engine lives
  std::string peer;
  int64_t connect_time_us = 0;  // microseconds since 1970 by the wall clock
  bool requested_block_sizes = false;
  bool structured_replies = false;
  uint64_t spec_generation = 0;
  uint64_t unaligned_requests = 0;
  uint64_t rejected_requests = 0;
  uint32_t minimum_bytes = 0;
  uint32_t preferred_bytes = 0;
  uint32_t maximum_payload_bytes = 0;
};

enum class DeleteMode {
  kSafe,  // kFailedPrecondition EXPORT_HAS_CONNECTIONS while there are connections
  kHard,  // cut the connections after what is in flight
  // No new connections; what is in flight is finished, every later request is answered with
  // NBD_ESHUTDOWN, and after a moment (a second at most, besides what is in flight) the connections
  // are closed. What was written is on stable storage then.
  kShutdown,
};

// Told of connections, on threads of the engine, several at a time: must not block. Of one
// connection `connected` comes first, and both come exactly once. Empty ones are not called.
struct Observer {
  // A client has entered transmission: from now on it counts in ExportState::connection_count.
  absl::AnyInvocable<void(const std::string& export_name, const ConnectionState&) const> connected;
  absl::AnyInvocable<void(const std::string& export_name, uint64_t id) const> disconnected;
};

// A disk opened for inspection: what is below an image's or an export's name. Thread-safe; holds
// the image open (and locked) until it is destroyed. Read(), Write() and Map() on a target of an
// export see what clients see: its size, its padding, read-only.
class Target {
 public:
  virtual ~Target() = default;

  virtual ByteCount size() const = 0;          // as addressed: with padding for an export
  virtual ByteCount content_size() const = 0;  // without padding
  virtual bool writable() const = 0;
  // The advertised minimum for an export, 1 for an image.
  virtual uint32_t granule() const = 0;

  // kOutOfRange OFFSET_BEYOND_END if the range does not lie within size().
  virtual void Read(ByteRange range, Callback<absl::StatusOr<std::vector<std::byte>>> done) = 0;
  // Durable when done. kPermissionDenied if not writable.
  virtual void Write(ByteOffset offset, std::vector<std::byte> data,
                     Callback<absl::Status> done) = 0;
  // Extents of a prefix of `range`, at most `max_extents`; byte-exact. Padding is not part of it:
  // the answer ends at content_size().
  virtual void Map(ByteRange range, std::size_t max_extents,
                   Callback<absl::StatusOr<block::ExtentList>> done) = 0;
  // Why the bytes of `range` are what they are, in at most `most` pieces from its beginning on,
  // each alike at every step: engine/explanation.h. kOutOfRange OFFSET_BEYOND_END as Read().
  virtual void Explain(ByteRange range, std::size_t most,
                       Callback<absl::StatusOr<std::vector<Explanation>>> done) = 0;

 protected:
  Target() = default;
};

// Bytes of a file.
struct MeasuredImage {
  ByteCount required;         // with as many clusters as it was asked for
  ByteCount fully_allocated;  // with all of them
};

// What the file of a new image would need, if `allocated` bytes of its disk, in whole clusters of
// it, have data. kInvalidArgument, naming the field, for options that cannot work together. Pure.
absl::StatusOr<MeasuredImage> MeasureImage(const ImageBuild& build, ByteCount allocated);

// Owned by the program; all calls from any thread. Stop() before destruction, after the last
// callback's owner has finished.
class Engine {
 public:
  // Starts the shards and, if `options.nbd` names any, the listeners. `logger` outlives the engine.
  static absl::StatusOr<std::unique_ptr<Engine>> Start(EngineOptions options, Logger& logger);

  virtual ~Engine() = default;
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  virtual EngineInfo info() const = 0;
  // OK when every shard has taken a turn. A shard that hangs gives no answer: callers wait only for
  // so long.
  virtual void Ping(Callback<absl::Status> done) = 0;
  // Once, before the first export. The observer is called until Stop() returns. Blocks briefly.
  virtual void SetObserver(Observer observer) = 0;

  // Opens `directory` for good. kAlreadyExists if the engine has a pool of that name. Blocks
  // briefly; call at start.
  virtual absl::Status AddPool(const std::string& name, const std::string& directory) = 0;
  virtual void GetPool(std::string name, Callback<absl::StatusOr<PoolInfo>> done) = 0;

  // BuildImage() of a new image without preallocation in one piece; on error nothing is left.
  virtual void CreateImage(ImageSpec spec, ByteCount size,
                           Callback<absl::StatusOr<ImageInfo>> done) = 0;
  // BuildImage() from `source_file` in one piece; on error nothing is left.
  virtual void ImportImage(ImageSpec spec, std::string source_file, bool move,
                           Callback<absl::StatusOr<ImageInfo>> done) = 0;
  // Does the next piece of making the image's file: about `budget` bytes of work from `from` on,
  // which is what an earlier piece returned as done, or 0 at first. Holes count little. Stateless:
  // what there is on disk is taken up, so that a piece may be repeated, also from an older `from`,
  // and by an engine that was started after a crash; 0 begins anew. What is answered as done is
  // durable. The file is called `.UID.unfinished` until it is complete; when it is, further calls
  // find it complete. After an error it stays, for another try or RemoveImage().
  // kAlreadyExists RESOURCE_EXISTS if there is a file of that name that does not carry the uid;
  // kResourceExhausted POOL_FULL; kFailedPrecondition if the source is not what it was when the
  // copy began, IMAGE_LOCKED while another process writes to it.
  virtual void BuildImage(ImageBuild build, ByteOffset from, ByteCount budget,
                          Callback<absl::StatusOr<BuildProgress>> done) = 0;
  // What BuildImage would find wrong before its first byte: the source, the name, free space, the
  // size. Errors of the source have `field` source_file in their metadata.
  // Changes nothing. The answer tells the total.
  virtual void CheckBuild(ImageBuild build, Callback<absl::StatusOr<BuildProgress>> done) = 0;
  // Removes the next piece of the image's file, `budget` bytes on disk or a little more: at first
  // it is renamed to `.UID.removed`, then it is cut from its end, then unlinked. Goes on with
  // `.UID.unfinished`. OK and complete if nothing is there; a file of that name that carries
  // another uid is left alone. Stateless, as BuildImage. kFailedPrecondition IMAGE_IN_USE while an
  // export or target uses it, IMAGE_LOCKED while another process does, IMAGE_REPLACED if the file
  // carries no uid at all.
  virtual void RemoveImage(ImageSpec spec, ByteCount budget,
                           Callback<absl::StatusOr<RemovalProgress>> done) = 0;
  // What RemoveImage would find wrong. Changes nothing.
  virtual void CheckRemoval(ImageSpec spec, Callback<absl::Status> done) = 0;
  // Removes the `.UID.unfinished` and `.UID.removed` files of the pool whose UID is not in
  // `keep_uids`; answers their names.
  virtual void SweepPool(std::string pool, std::vector<std::string> keep_uids,
                         Callback<absl::StatusOr<std::vector<std::string>>> done) = 0;
  // kFailedPrecondition IMAGE_FILE_MISSING if the file is missing, IMAGE_REPLACED if the one that
  // has its name carries another image's identity, or is not the one that is open for the image.
  virtual void StatImage(ImageSpec spec, Callback<absl::StatusOr<ImageInfo>> done) = 0;
  // One answer for each, in order.
  virtual void StatImages(std::vector<ImageSpec> specs,
                          Callback<std::vector<absl::StatusOr<ImageInfo>>> done) = 0;
  // Whether a file of the pool can have `size` bytes, whatever space is left: kResourceExhausted
  // SIZE_OUT_OF_RANGE. Leaves nothing.
  virtual void CheckSize(std::string pool, ByteCount size, Callback<absl::Status> done) = 0;
  // Grows the image, also while it is exported; kInvalidArgument SHRINK_NOT_ALLOWED if it is larger
  // already.
  virtual void GrowImage(ImageSpec spec, ByteCount size,
                         Callback<absl::StatusOr<ImageInfo>> done) = 0;
  // Makes the image smaller: what lies behind `size` is lost. kFailedPrecondition IMAGE_IN_USE
  // while anything has it open; kInvalidArgument if it is not larger, or has internal snapshots.
  virtual void ShrinkImage(ImageSpec spec, ByteCount size,
                           Callback<absl::StatusOr<ImageInfo>> done) = 0;
  // Checks a qcow2 image's tables, and repairs them if that is asked; minutes for large ones.
  // `control` outlives the call of `done`. kFailedPrecondition IMAGE_IN_USE: an export or target
  // writes to it, or, for a repair, has it open; kCancelled by `control`.
  virtual void CheckImage(ImageSpec spec, ImageRepair repair, CheckControl* control,
                          Callback<absl::StatusOr<CheckReport>> done) = 0;
  // RemoveImage() in one piece.
  virtual void DeleteImage(ImageSpec spec, Callback<absl::Status> done) = 0;

  // Opens the image (unless it is open), takes its locks and serves it. kAlreadyExists for a name
  // or wire name in use.
  virtual void CreateExport(ExportSpec spec, Callback<absl::StatusOr<ExportState>> done) = 0;
  // Brings a served export to `spec`: same name, wire name and image. Block sizes apply to new
  // connections; read_only false to true is live, the other way applies to new connections. On
  // error everything stays as it was.
  // Filters change at once for all: parameters that can, without holding requests; any other change
  // while requests are held back and none is in flight, or it is kAborted QUIESCE_TIMEOUT
  // (metadata timeout). An entry that stays as it is keeps its state. kFailedPrecondition
  // STACK_INCOMPATIBLE_WITH_CONNECTIONS (metadata export, connections) if clients are connected
  // that were told another size or writability, or a smaller minimum block size, or would see other
  // bytes. kInvalidArgument FILTER_PARAMETERS_INVALID with the metadata entry-id, index, and field,
  // which is relative to the filter's spec: "slice.partition"; kFailedPrecondition
  // FILTER_KIND_DISABLED (metadata kind) for luks filters without a directory of secrets. Disks are
  // opened anew, which takes seconds, before requests are held back.
  // Filters decide whether the image is written to: copy on read does, also for a read-only export,
  // and what is above a copy on write does not. Where one would not see what others write, nobody
  // else may: kFailedPrecondition FILTER_PARAMETERS_INVALID (metadata image) for whoever comes
  // second. Caches write back before any change of the stack, and before read_only becomes true;
  // if they cannot, the change is refused.
  virtual void UpdateExport(ExportSpec spec, Callback<absl::StatusOr<ExportState>> done) = 0;
  virtual void DeleteExport(std::string name, DeleteMode mode, Callback<absl::Status> done) = 0;
  virtual void GetExport(std::string name, Callback<absl::StatusOr<ExportState>> done) = 0;
  // One answer for each, in order.
  virtual void GetExports(std::vector<std::string> names,
                          Callback<std::vector<absl::StatusOr<ExportState>>> done) = 0;
  virtual void ListConnections(std::string export_name,
                               Callback<absl::StatusOr<std::vector<ConnectionState>>> done) = 0;
  // Requests in flight are finished and answered first. kNotFound if there is no such connection.
  virtual void CloseConnection(std::string export_name, uint64_t id,
                               Callback<absl::Status> done) = 0;
  // One for each entry of the export's filters, in order.
  virtual void GetFilterStatistics(
      std::string export_name, Callback<absl::StatusOr<std::vector<FilterStatistics>>> done) = 0;
  // What UpdateExport or CreateExport would answer, without doing it. For CreateExport the image is
  // opened and locked and let go again.
  virtual void CheckExport(ExportSpec spec, Callback<absl::StatusOr<ExportState>> done) = 0;

  virtual void OpenImageTarget(ImageSpec spec, bool writable,
                               Callback<absl::StatusOr<std::unique_ptr<Target>>> done) = 0;
  virtual void OpenExportTarget(std::string export_name,
                                Callback<absl::StatusOr<std::unique_ptr<Target>>> done) = 0;

  // Stops accepting, lets requests in flight finish, ends the connections, closes the images.
  // Targets have been destroyed. Blocks until that is done; call once, last.
  virtual void Stop() = 0;

 protected:
  Engine() = default;
};

}  // namespace gabion::engine
