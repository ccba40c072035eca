// A domain over a store and files in memory that survive its restarts.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/log.h"
#include "engine/base/status_macros.h"
#include "google/protobuf/empty.pb.h"
#include "google/protobuf/text_format.h"
#include "service/domain/domain.h"
#include "service/errors.h"
#include "service/store/memory_store.h"
#include "tests/service/fake_engine.h"

namespace gabion::service {

// A store that asks a gate before each commit, and another one after it. Owned by the test; any
// thread, and so are the gates.
class GatedStore final : public MetadataStore {
 public:
  explicit GatedStore(MetadataStore& store) : store_(&store) {}

  // Another store instead; nobody uses this one meanwhile.
  void Exchange(MetadataStore& store) { store_ = &store; }

  void SetGate(std::function<absl::Status()> gate) {
    const std::lock_guard lock(mutex_);
    gate_ = std::move(gate);
  }
  // Its error is the answer of a commit that has been made.
  void SetAnswerGate(std::function<absl::Status()> gate) {
    const std::lock_guard lock(mutex_);
    answer_gate_ = std::move(gate);
  }

  absl::StatusOr<Row> Get(std::string_view collection, std::string_view name) override {
    return store_->Get(collection, name);
  }
  absl::StatusOr<RowsAt> GetMany(std::span<const RowKey> keys) override {
    return store_->GetMany(keys);
  }
  absl::StatusOr<Page> List(std::string_view collection, std::string_view after, size_t limit,
                            std::string_view prefix) override {
    return store_->List(collection, after, limit, prefix);
  }
  absl::StatusOr<uint64_t> Commit(const std::vector<Mutation>& steps) override {
    RETURN_IF_ERROR(Ask(&gate_));
    absl::StatusOr<uint64_t> revision = store_->Commit(steps);
    RETURN_IF_ERROR(Ask(&answer_gate_));
    return revision;
  }
  absl::StatusOr<std::vector<Change>> Changes(uint64_t after, size_t limit) override {
    return store_->Changes(after, limit);
  }
  absl::Status TrimChanges(uint64_t through) override { return store_->TrimChanges(through); }
  absl::StatusOr<uint64_t> Revision() override { return store_->Revision(); }
  absl::StatusOr<uint64_t> OldestRevision() override { return store_->OldestRevision(); }
  void SetListener(Listener listener) override { store_->SetListener(std::move(listener)); }
  absl::Status Ping() override { return store_->Ping(); }

 private:
  absl::Status Ask(const std::function<absl::Status()>* gate) {
    std::function<absl::Status()> asked;
    {
      const std::lock_guard lock(mutex_);
      asked = *gate;
    }
    return asked ? asked() : absl::OkStatus();
  }

  MetadataStore* store_;
  std::mutex mutex_;
  std::function<absl::Status()> gate_;
  std::function<absl::Status()> answer_gate_;
};

class DomainFixture : public testing::Test {
 protected:
  // What a test wants otherwise.
  using Adjust = std::function<void(DomainOptions*)>;

  explicit DomainFixture(Adjust adjust = {})
      : adjust_(std::move(adjust)), kept_(NewMemoryStore()), store_(*kept_) {
    Start();
  }
  ~DomainFixture() override { Stop(); }

  void Start() {
    const absl::Status started = TryStart();
    ASSERT_TRUE(started.ok()) << started;
  }
  absl::Status TryStart() {
    engine_ = std::make_unique<FakeEngine>(files_);
    if (prepare_engine_) prepare_engine_(engine_.get());
    DomainOptions options;
    options.pools = {{"pools/default", "/images"}};
    options.exports.reconciler = {std::chrono::milliseconds(2), std::chrono::milliseconds(10)};
    options.operations.first_retry = std::chrono::milliseconds(2);
    options.operations.longest_retry = std::chrono::milliseconds(10);
    options.exports.max_connections = 100;
    options.facts.set_version("0.0.0-test");
    if (adjust_) adjust_(&options);
    ASSIGN_OR_RETURN(domain_, Domain::Open(*engine_, store_, NullLogger(), std::move(options)));
    return absl::OkStatus();
  }
  void Stop() {
    if (domain_ != nullptr) domain_->Stop();
    domain_.reset();
    engine_.reset();
  }
  void Restart() {
    Stop();
    Start();
  }

  absl::StatusOr<v1::Image> CreateImage(const std::string& id, uint64_t size = 4096) {
    v1::CreateImageRequest request;
    request.set_image_id(id);
    request.mutable_image()->mutable_raw();
    request.mutable_image()->set_virtual_size_bytes(size);
    return Result<v1::Image>(domain_->images().Create(request, Call()));
  }
  absl::StatusOr<v1::Image> CreateQcow2(const std::string& id, uint64_t size = 4096) {
    v1::CreateImageRequest request;
    request.set_image_id(id);
    request.mutable_image()->mutable_qcow2();
    request.mutable_image()->set_virtual_size_bytes(size);
    return Result<v1::Image>(domain_->images().Create(request, Call()));
  }
  // `source`: images/...
  absl::StatusOr<v1::Image> Clone(const std::string& id, const std::string& source) {
    v1::CloneImageRequest request;
    request.set_image_id(id);
    request.set_source(source);
    return Result<v1::Image>(domain_->images().Clone(request, Call()));
  }
  absl::StatusOr<v1::Image> Import(const std::string& id, const std::string& source_file, bool move,
                                   uint64_t size = 0) {
    v1::ImportImageRequest request;
    request.set_image_id(id);
    request.mutable_image()->mutable_raw();
    request.mutable_image()->set_virtual_size_bytes(size);
    request.set_source_file(source_file);
    request.set_move(move);
    return Result<v1::Image>(domain_->images().Import(request, Call()));
  }
  absl::StatusOr<v1::Image> UpdateImage(const v1::Image& image, const std::string& path) {
    v1::UpdateImageRequest request;
    *request.mutable_image() = image;
    request.mutable_image()->clear_etag();  // whatever it is now
    request.mutable_update_mask()->add_paths(path);
    return domain_->images().Update(request, Call());
  }
  absl::StatusOr<v1::Export> CreateExport(
      const std::string& id, const std::string& image,
      const std::function<void(v1::Export*)>& change = [](v1::Export*) {}) {
    v1::CreateExportRequest request;
    request.set_export_id(id);
    request.mutable_export_()->set_source(image);
    change(request.mutable_export_());
    return domain_->exports().Create(request, Call());
  }
  absl::StatusOr<v1::Export> UpdateExport(const v1::Export& exported,
                                          const std::vector<std::string>& paths) {
    v1::UpdateExportRequest request;
    *request.mutable_export_() = exported;
    request.mutable_export_()->clear_etag();  // whatever it is now
    for (const std::string& path : paths) request.mutable_update_mask()->add_paths(path);
    return domain_->exports().Update(request, Call());
  }
  // `spec` in text format: "delay { read { nanos: 1000 } }".
  static v1::FilterSpec FilterSpecOf(const std::string& spec) {
    v1::FilterSpec parsed;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(spec, &parsed)) << spec;
    return parsed;
  }
  absl::StatusOr<v1::Filter> CreateFilter(const std::string& id, const std::string& spec) {
    v1::CreateFilterRequest request;
    request.set_filter_id(id);
    *request.mutable_filter()->mutable_spec() = FilterSpecOf(spec);
    return domain_->filters().Create(request, Call());
  }
  absl::StatusOr<v1::Filter> UpdateFilter(const std::string& name, const std::string& spec) {
    v1::UpdateFilterRequest request;
    request.mutable_filter()->set_name(name);
    *request.mutable_filter()->mutable_spec() = FilterSpecOf(spec);
    request.mutable_update_mask()->add_paths("spec");
    return domain_->filters().Update(request, Call());
  }
  absl::Status DeleteFilter(const std::string& name) {
    v1::DeleteFilterRequest request;
    request.set_name(name);
    return domain_->filters().Delete(request, Call());
  }
  v1::Filter GetFilter(const std::string& name) {
    auto filter = domain_->filters().Get(name);
    EXPECT_TRUE(filter.ok()) << filter.status();
    return filter.ok() ? *filter : v1::Filter();
  }
  // An entry in text format: "filter: 'filters/a'", added as the last one.
  static void AddEntry(v1::Export* exported, const std::string& entry) {
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(entry, exported->add_filter_stack()))
        << entry;
  }
  absl::Status DeleteImage(const std::string& name) {
    v1::DeleteImageRequest request;
    request.set_name(name);
    return Result<google::protobuf::Empty>(domain_->images().Delete(request, Call())).status();
  }
  absl::Status DeleteExport(const std::string& name, v1::DeleteExportRequest::Mode mode =
                                                         v1::DeleteExportRequest::MODE_SAFE) {
    v1::DeleteExportRequest request;
    request.set_name(name);
    request.set_mode(mode);
    return Result<google::protobuf::Empty>(domain_->exports().Delete(request, Call())).status();
  }
  absl::Status CloseConnection(const std::string& name) {
    v1::CloseConnectionRequest request;
    request.set_name(name);
    return domain_->connections().Close(request, Call()).status();
  }

  // Blocks until no operation is under way any more.
  void AwaitOperations() {
    google::longrunning::ListOperationsRequest request;
    request.set_page_size(1000);
    const auto all = domain_->operations().List(request);
    ASSERT_TRUE(all.ok()) << all.status();
    for (const google::longrunning::Operation& operation : all->operations()) {
      std::promise<void> done;
      domain_->operations().WhenDone(operation.name(), [&done] { done.set_value(); });
      done.get_future().wait();
    }
  }

  // What an operation that is done came to; UNAVAILABLE if it is not done.
  template <typename Response>
  static absl::StatusOr<Response> Result(
      const absl::StatusOr<google::longrunning::Operation>& operation) {
    if (!operation.ok()) return operation.status();
    if (!operation->done()) return absl::UnavailableError("The operation goes on.");
    if (operation->has_error()) return FromRpcStatus(operation->error());
    Response response;
    EXPECT_TRUE(operation->response().UnpackTo(&response));
    return response;
  }
  v1::Export GetExport(const std::string& name) {
    auto exported = domain_->exports().Get(name);
    EXPECT_TRUE(exported.ok()) << exported.status();
    return exported.ok() ? *exported : v1::Export();
  }
  // Writes text into an image's file, behind the daemon's back.
  void Fill(const std::string& file, uint64_t offset, const std::string& text) {
    FakeFiles::File filled = files_.Get(file);
    filled.bytes.replace(offset, text.size(), text);
    files_.Put(file, std::move(filled));
  }

  static std::string ReasonIn(const absl::Status& status) { return InfoOf(status).reason(); }
  static std::string MetadataIn(const absl::Status& status, const std::string& key) {
    const google::rpc::ErrorInfo info = InfoOf(status);
    const auto found = info.metadata().find(key);
    return found == info.metadata().end() ? "(none)" : found->second;
  }

  Adjust adjust_;                                    // at every start
  std::function<void(FakeEngine*)> prepare_engine_;  // at every start, before it is used
  FakeFiles files_;
  std::unique_ptr<MetadataStore> kept_;
  GatedStore store_;
  std::unique_ptr<FakeEngine> engine_;
  std::unique_ptr<Domain> domain_;
};

}  // namespace gabion::service
