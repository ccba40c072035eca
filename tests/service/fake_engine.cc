#include "tests/service/fake_engine.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "engine/base/reason.h"
#include "engine/base/status_macros.h"

namespace gabion::service {

using engine::Callback;
using engine::ConnectionState;
using engine::ExportState;
using engine::ImageInfo;
using engine::ImageSpec;
using engine::Target;

namespace {

absl::Status NoSuchExport(const std::string& name) {
  return WithReason(absl::NotFoundError(absl::StrCat("there is no ", name)),
                    {"RESOURCE_NOT_FOUND", {{"resource", name}}});
}

absl::Status BeyondEnd(ByteRange range, ByteCount size) {
  return WithReason(
      absl::OutOfRangeError(absl::StrCat("the range of ", range.length.value, " bytes at ",
                                         range.offset.value, " goes beyond ", size.value)),
      {"OFFSET_BEYOND_END", {{"field", "offset"}, {"size", absl::StrCat(size.value)}}});
}

}  // namespace

// Data is where the bytes are not zero; everything else is a hole.
class FakeTarget final : public Target {
 public:
  FakeTarget(FakeEngine& engine, std::string file, ByteCount size, ByteCount content_size,
             bool writable, uint32_t granule)
      : engine_(engine),
        file_(std::move(file)),
        size_(size),
        content_size_(content_size),
        writable_(writable),
        granule_(granule) {
    const std::lock_guard lock(engine_.mutex_);
    engine_.open_targets_.insert(file_);
  }
  ~FakeTarget() override {
    const std::lock_guard lock(engine_.mutex_);
    engine_.open_targets_.erase(engine_.open_targets_.find(file_));
  }

  ByteCount size() const override { return size_; }
  ByteCount content_size() const override { return content_size_; }
  bool writable() const override { return writable_; }
  uint32_t granule() const override { return granule_; }

  void Read(ByteRange range, Callback<absl::StatusOr<std::vector<std::byte>>> done) override {
    engine_.Do<absl::StatusOr<std::vector<std::byte>>>(
        "Read", std::move(done), [this, range]() -> absl::StatusOr<std::vector<std::byte>> {
          if (range.end().value > size_.value) return BeyondEnd(range, size_);
          std::string bytes = engine_.files_.Get(file_).bytes;
          bytes.resize(std::max<std::size_t>(bytes.size(), range.end().value));
          std::vector<std::byte> read(range.length.value);
          std::memcpy(read.data(), bytes.data() + range.offset.value, read.size());
          return read;
        });
  }

  // The bytes are in the file, in one piece.
  void Explain(ByteRange range, std::size_t /*most*/,
               Callback<absl::StatusOr<std::vector<engine::Explanation>>> done) override {
    using Pieces = std::vector<engine::Explanation>;
    engine_.Do<absl::StatusOr<Pieces>>(
        "Explain", std::move(done), [this, range]() -> absl::StatusOr<Pieces> {
          if (range.end().value > size_.value) return BeyondEnd(range, size_);
          engine::Explanation piece{.range = range};
          piece.layers.push_back({.depth = 1,
                                  .file_name = file_,
                                  .state = engine::ExplainedLayer::State::kData,
                                  .host_offset = range.offset.value});
          return Pieces{piece};
        });
  }

  void Write(ByteOffset offset, std::vector<std::byte> data, Callback<absl::Status> done) override {
    engine_.Do<absl::Status>("Write", std::move(done), [this, offset, data]() -> absl::Status {
      const std::lock_guard lock(engine_.files_.mutex_);
      std::string& bytes = engine_.files_.files_.at(file_).bytes;
      if (offset.value + data.size() > bytes.size()) {
        return absl::ResourceExhaustedError("past the end of the image");
      }
      std::memcpy(bytes.data() + offset.value, data.data(), data.size());
      return absl::OkStatus();
    });
  }

  void Map(ByteRange range, std::size_t max_extents,
           Callback<absl::StatusOr<block::ExtentList>> done) override {
    engine_.Do<absl::StatusOr<block::ExtentList>>(
        "Map", std::move(done), [this, range, max_extents]() -> absl::StatusOr<block::ExtentList> {
          if (range.empty() || range.end().value > content_size_.value) {
            return BeyondEnd(range, content_size_);
          }
          return Extents(engine_.files_.Get(file_).bytes, range, max_extents);
        });
  }

 private:
  static block::ExtentList Extents(const std::string& bytes, ByteRange range,
                                   std::size_t max_extents) {
    block::ExtentList extents;
    uint64_t at = range.offset.value;
    while (at < range.end().value && extents.size() < max_extents) {
      const bool data = bytes[at] != '\0';
      uint64_t end = at;
      while (end < range.end().value && (bytes[end] != '\0') == data) ++end;
      block::Extent extent;
      extent.range = Range(at, end - at);
      extent.kind = data ? block::ExtentKind::kData : block::ExtentKind::kZero;
      extent.host_offset = data ? at : block::kNoHostOffset;
      extents.push_back(extent);
      at = end;
    }
    return extents;
  }

  FakeEngine& engine_;
  const std::string file_;
  const ByteCount size_;
  const ByteCount content_size_;
  const bool writable_;
  const uint32_t granule_;
};

FakeEngine::FakeEngine(FakeFiles& files) : files_(files) {}
FakeEngine::~FakeEngine() { Stop(); }

void FakeEngine::FailNext(const std::string& method, absl::Status status) {
  const std::lock_guard lock(mutex_);
  failures_[method].push_back(std::move(status));
}

void FakeEngine::SetGate(std::function<absl::Status()> gate) {
  const std::lock_guard lock(mutex_);
  gate_ = std::move(gate);
}

void FakeEngine::SetAnswerGate(std::function<absl::Status()> gate) {
  const std::lock_guard lock(mutex_);
  answer_gate_ = std::move(gate);
}

void FakeEngine::Hold(const std::string& method) {
  const std::lock_guard lock(mutex_);
  held_[method];
}

void FakeEngine::Release(const std::string& method) {
  std::vector<absl::AnyInvocable<void() &&>> answers;
  {
    const std::lock_guard lock(mutex_);
    answers = std::move(held_[method]);
    held_.erase(method);
  }
  for (auto& answer : answers) std::move(answer)();
}

void FakeEngine::AwaitCalls(const std::string& method, int count) {
  std::unique_lock lock(mutex_);
  called_.wait(lock, [&] { return calls_[method] >= count; });
}

int FakeEngine::calls(const std::string& method) const {
  const std::lock_guard lock(mutex_);
  const auto found = calls_.find(method);
  return found == calls_.end() ? 0 : found->second;
}

void FakeEngine::AddConnection(const std::string& export_name, ConnectionState connection) {
  const std::lock_guard lock(mutex_);
  if (observer_.connected) observer_.connected(export_name, connection);
  exports_.at(export_name).connections.push_back(std::move(connection));
}

void FakeEngine::RemoveConnection(const std::string& export_name, uint64_t id) {
  const std::lock_guard lock(mutex_);
  const auto found = exports_.find(export_name);
  if (found == exports_.end()) return;
  const auto erased = std::erase_if(found->second.connections,
                                    [id](const ConnectionState& c) { return c.id == id; });
  if (erased > 0 && observer_.disconnected) observer_.disconnected(export_name, id);
}

bool FakeEngine::Serves(const std::string& export_name) const {
  const std::lock_guard lock(mutex_);
  return exports_.contains(export_name);
}

std::vector<std::string> FakeEngine::served() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> names;
  for (const auto& [name, exported] : exports_) names.push_back(name);
  return names;
}

engine::ExportSpec FakeEngine::Spec(const std::string& export_name) const {
  const std::lock_guard lock(mutex_);
  return exports_.at(export_name).spec;
}

int FakeEngine::open_targets() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int>(open_targets_.size());
}

engine::EngineInfo FakeEngine::info() const {
  engine::EngineInfo info;
  info.io_driver = "threads";
  info.shards = 1;
  info.nbd_unix_path = "/run/gabion test/nbd.sock";
  info.nbd_tcp_address = "127.0.0.1:10809";
  return info;
}

void FakeEngine::Ping(Callback<absl::Status> done) {
  Do<absl::Status>("Ping", std::move(done), [] { return absl::OkStatus(); });
}

void FakeEngine::SetObserver(engine::Observer observer) {
  const std::lock_guard lock(mutex_);
  observer_ = std::move(observer);
}

void FakeEngine::TellEnd(const std::string& export_name, const Export& exported) const {
  if (!observer_.disconnected) return;
  for (const ConnectionState& connection : exported.connections) {
    observer_.disconnected(export_name, connection.id);
  }
}

absl::Status FakeEngine::AddPool(const std::string& name, const std::string& directory) {
  const std::lock_guard lock(mutex_);
  if (!pools_.emplace(name, directory).second) return absl::AlreadyExistsError(name);
  return absl::OkStatus();
}

void FakeEngine::GetPool(std::string, Callback<absl::StatusOr<engine::PoolInfo>> done) {
  Do<absl::StatusOr<engine::PoolInfo>>("GetPool", std::move(done), [] {
    return engine::PoolInfo{ByteCount{1000 * kMiB}, ByteCount{400 * kMiB}, true, false};
  });
}

absl::StatusOr<ExportState> FakeEngine::State(const Export& exported) const {
  ASSIGN_OR_RETURN(const ImageInfo info, Info(exported.spec.image));
  block::Limits limits;
  limits.size = info.virtual_size;
  limits.writable = true;
  const auto sizes =
      block::ResolveBlockSizes(exported.spec.block_sizes, limits, exported.spec.image.name);
  if (const auto* error = std::get_if<block::BlockSizeError>(&sizes)) {
    std::vector<std::pair<std::string, std::string>> metadata = error->metadata;
    return WithReason(absl::Status(error->code, error->message),
                      {std::string(error->reason), std::move(metadata)});
  }
  ExportState state;
  state.effective = std::get<block::EffectiveBlockSizes>(sizes);
  state.connection_count = static_cast<uint32_t>(exported.connections.size());
  state.generation = exported.spec.generation;
  for (const ConnectionState& connection : exported.connections) {
    const uint32_t told = connection.minimum_bytes;  // 0: the test does not care
    if (told != 0 && told != state.effective.minimum.bytes) state.sizes_propagated = false;
  }
  return state;
}

void FakeEngine::CreateExport(engine::ExportSpec spec, Callback<absl::StatusOr<ExportState>> done) {
  Do<absl::StatusOr<ExportState>>("CreateExport", std::move(done),
                                  [this, spec]() -> absl::StatusOr<ExportState> {
                                    RETURN_IF_ERROR(CheckUnlocked(spec.image));
                                    RETURN_IF_ERROR(CheckStack(spec));
                                    const std::lock_guard lock(mutex_);
                                    if (exports_.contains(spec.name))
                                      return absl::AlreadyExistsError(spec.name);
                                    Export exported{spec, {}};
                                    ASSIGN_OR_RETURN(const ExportState state, State(exported));
                                    exports_[spec.name] = std::move(exported);
                                    return state;
                                  });
}

void FakeEngine::UpdateExport(engine::ExportSpec spec, Callback<absl::StatusOr<ExportState>> done) {
  Do<absl::StatusOr<ExportState>>("UpdateExport", std::move(done),
                                  [this, spec]() -> absl::StatusOr<ExportState> {
                                    RETURN_IF_ERROR(CheckStack(spec));
                                    const std::lock_guard lock(mutex_);
                                    const auto found = exports_.find(spec.name);
                                    if (found == exports_.end()) return NoSuchExport(spec.name);
                                    Export changed{spec, found->second.connections};
                                    ASSIGN_OR_RETURN(const ExportState state, State(changed));
                                    found->second = std::move(changed);
                                    return state;
                                  });
}

void FakeEngine::DeleteExport(std::string name, engine::DeleteMode mode,
                              Callback<absl::Status> done) {
  Do<absl::Status>("DeleteExport", std::move(done), [this, name, mode]() -> absl::Status {
    const std::lock_guard lock(mutex_);
    const auto found = exports_.find(name);
    if (found == exports_.end()) return NoSuchExport(name);
    if (mode == engine::DeleteMode::kSafe && !found->second.connections.empty()) {
      return WithReason(absl::FailedPreconditionError("there are connections"),
                        {"EXPORT_HAS_CONNECTIONS", {{"export", name}}});
    }
    TellEnd(name, found->second);
    exports_.erase(found);
    return absl::OkStatus();
  });
}

void FakeEngine::GetExport(std::string name, Callback<absl::StatusOr<ExportState>> done) {
  Do<absl::StatusOr<ExportState>>("GetExport", std::move(done),
                                  [this, name]() -> absl::StatusOr<ExportState> {
                                    const std::lock_guard lock(mutex_);
                                    const auto found = exports_.find(name);
                                    if (found == exports_.end()) return NoSuchExport(name);
                                    return State(found->second);
                                  });
}

void FakeEngine::GetExports(std::vector<std::string> names,
                            Callback<std::vector<absl::StatusOr<ExportState>>> done) {
  Do<std::vector<absl::StatusOr<ExportState>>>("GetExports", std::move(done), [this, names] {
    const std::lock_guard lock(mutex_);
    std::vector<absl::StatusOr<ExportState>> states;
    for (const std::string& name : names) {
      const auto found = exports_.find(name);
      states.push_back(found == exports_.end() ? NoSuchExport(name) : State(found->second));
    }
    return states;
  });
}

void FakeEngine::ListConnections(std::string export_name,
                                 Callback<absl::StatusOr<std::vector<ConnectionState>>> done) {
  Do<absl::StatusOr<std::vector<ConnectionState>>>(
      "ListConnections", std::move(done),
      [this, export_name]() -> absl::StatusOr<std::vector<ConnectionState>> {
        const std::lock_guard lock(mutex_);
        const auto found = exports_.find(export_name);
        if (found == exports_.end()) return NoSuchExport(export_name);
        return found->second.connections;
      });
}

void FakeEngine::CloseConnection(std::string export_name, uint64_t id,
                                 Callback<absl::Status> done) {
  Do<absl::Status>("CloseConnection", std::move(done), [this, export_name, id]() -> absl::Status {
    const std::lock_guard lock(mutex_);
    const auto found = exports_.find(export_name);
    if (found == exports_.end()) return NoSuchExport(export_name);
    const auto erased = std::erase_if(found->second.connections,
                                      [id](const ConnectionState& c) { return c.id == id; });
    if (erased > 0 && observer_.disconnected) observer_.disconnected(export_name, id);
    return erased == 0 ? absl::NotFoundError("no such connection") : absl::OkStatus();
  });
}

void FakeEngine::CheckExport(engine::ExportSpec spec, Callback<absl::StatusOr<ExportState>> done) {
  Do<absl::StatusOr<ExportState>>("CheckExport", std::move(done),
                                  [this, spec]() -> absl::StatusOr<ExportState> {
                                    RETURN_IF_ERROR(CheckUnlocked(spec.image));
                                    RETURN_IF_ERROR(CheckStack(spec));
                                    const std::lock_guard lock(mutex_);
                                    Export checked{spec, {}};
                                    const auto found = exports_.find(spec.name);
                                    if (found != exports_.end()) {
                                      checked.connections = found->second.connections;
                                    }
                                    return State(checked);
                                  });
}

void FakeEngine::OpenImageTarget(ImageSpec spec, bool writable,
                                 Callback<absl::StatusOr<std::unique_ptr<Target>>> done) {
  Do<absl::StatusOr<std::unique_ptr<Target>>>(
      "OpenImageTarget", std::move(done),
      [this, spec, writable]() -> absl::StatusOr<std::unique_ptr<Target>> {
        RETURN_IF_ERROR(CheckUnlocked(spec));
        ASSIGN_OR_RETURN(const ImageInfo info, Info(spec));
        return std::make_unique<FakeTarget>(*this, spec.file_name, info.virtual_size,
                                            info.virtual_size, writable, 1);
      });
}

void FakeEngine::OpenExportTarget(std::string export_name,
                                  Callback<absl::StatusOr<std::unique_ptr<Target>>> done) {
  Do<absl::StatusOr<std::unique_ptr<Target>>>(
      "OpenExportTarget", std::move(done),
      [this, export_name]() -> absl::StatusOr<std::unique_ptr<Target>> {
        Export exported;
        {
          const std::lock_guard lock(mutex_);
          const auto found = exports_.find(export_name);
          if (found == exports_.end()) return NoSuchExport(export_name);
          exported = found->second;
        }
        ASSIGN_OR_RETURN(const ExportState state, State(exported));
        return std::make_unique<FakeTarget>(
            *this, exported.spec.image.file_name, state.effective.export_size,
            state.effective.content_size, !exported.spec.read_only, state.effective.minimum.bytes);
      });
}

void FakeEngine::Stop() {
  ReleaseChecks();
  checks_.Stop();
  thread_.Stop();
}

}  // namespace gabion::service
