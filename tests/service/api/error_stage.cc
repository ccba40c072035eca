#include <memory>
#include <utility>

#include "engine/base/reason.h"
#include "google/longrunning/operations.pb.h"
#include "tests/service/api/error_scenes.h"

namespace gabion::service {
namespace {

constexpr size_t kMaxJobs = 2;
constexpr uint32_t kMaxExports = 2;
constexpr int kChangeThreads = 3;  // of four

void StageOptions(DomainOptions* options) {
  options->operations.piece_bytes = 4096;
  options->operations.max_jobs = kMaxJobs;
  options->exports.max_exports = kMaxExports;
}

}  // namespace

ErrorStage::ErrorStage() : ServerFixture(StageOptions) {
  EXPECT_TRUE(CreateImage("a", 1000).ok());
  EXPECT_TRUE(CreateExport("e", "images/a").ok());
  paused_ = CreatePausedImage("slow");
}

ErrorStage::~ErrorStage() { Settle(); }

void ErrorStage::Settle() {
  if (beside_.joinable()) beside_.join();
  if (gate_.has_value()) gate_->open.set_value();
  for (std::future<void>& waiting : waiting_) waiting.wait();
  waiting_.clear();
  gate_.reset();
}

std::string ErrorStage::Fill(const std::string& request) const {
  const std::string token = "$PAUSED";
  std::string filled = request;
  const size_t at = filled.find(token);
  if (at != std::string::npos) filled.replace(at, token.size(), paused_);
  return filled;
}

void ErrorStage::Fail(const std::string& engine_method, const absl::Status& status) {
  engine_->FailNext(engine_method, status);
}

void ErrorStage::Fail(const std::string& engine_method, absl::Status status,
                      const ErrorReason& reason) {
  Fail(engine_method, WithReason(std::move(status), {std::string(reason.name), {}}));
}

void ErrorStage::Remember(const std::string& request_id) {
  v1::UpdateImageRequest request;
  request.mutable_image()->set_name("images/slow");
  (*request.mutable_image()->mutable_labels())["tier"] = "gold";
  request.set_request_id(request_id);
  v1::Image response;
  EXPECT_TRUE(Call(*images_, &v1::ImageService::Stub::UpdateImage, request, &response).ok());
}

void ErrorStage::PutFile(const std::string& name, const std::string& content) {
  files_.Put(name, {"", content, false});
}

void ErrorStage::Bury(const std::string& id) {
  EXPECT_TRUE(CreateImage(id, 512).ok());
  v1::DeleteImageRequest request;
  request.set_name("images/" + id);
  request.set_mode(v1::DeleteImageRequest::MODE_TOMBSTONE);
  request.mutable_retention()->set_seconds(3600);
  EXPECT_TRUE(domain_->images().Delete(request, service::Call()).ok());
}

void ErrorStage::Attach(const std::string& id, const std::string& spec,
                        const std::string& exported) {
  EXPECT_TRUE(CreateFilter(id, spec).ok());
  v1::AttachFilterRequest request;
  request.set_name(exported);
  request.mutable_entry()->set_filter("filters/" + id);
  EXPECT_TRUE(domain_->exports().AttachFilter(request, service::Call()).ok());
}

void ErrorStage::MakeChain(const std::string& prefix, int count) {
  EXPECT_TRUE(CreateQcow2(prefix + "1", 512).ok());
  for (int i = 2; i <= count; ++i) {
    const auto on = "images/" + prefix + std::to_string(i - 1);
    EXPECT_TRUE(Clone(prefix + std::to_string(i), on).ok());
  }
}

void ErrorStage::Corrupt(const std::string& file) {
  FakeFiles::File corrupt = files_.Get(file);
  corrupt.qcow2.corrupt = true;
  files_.Put(file, std::move(corrupt));
}

void ErrorStage::ChangeUnderTheNextCall() {
  store_.SetGate([this, done = false]() mutable -> absl::Status {
    if (std::exchange(done, true)) return absl::OkStatus();
    const absl::StatusOr<Row> row = kept_->Get("images", "images/a");
    if (!row.ok()) return row.status();
    return kept_->Commit({Put("images", row->name, row->value)}).status();
  });
}

void ErrorStage::OutrunTheNextWatch() {
  const int looks = engine_->calls("StatImages");
  engine_->Hold("StatImages");
  beside_ = std::thread([this, looks] {
    engine_->AwaitCalls("StatImages", looks + 1);
    const absl::StatusOr<uint64_t> touched = kept_->Commit({Touch("images", "images/a")});
    EXPECT_TRUE(touched.ok() && kept_->TrimChanges(*touched).ok());
    engine_->Release("StatImages");
  });
}

void ErrorStage::FillTheQueue() {
  gate_.emplace();
  // First the threads, so that none of them takes anything off the queue later.
  const auto begun = std::make_shared<std::latch>(kChangeThreads);
  for (int i = 0; i < kChangeThreads; ++i) EXPECT_TRUE(OfferWait(begun));
  begun->wait();
  while (OfferWait(nullptr)) {
  }
}

bool ErrorStage::OfferWait(const std::shared_ptr<std::latch>& begun) {
  auto done = std::make_shared<std::promise<void>>();
  const auto taken =
      executor_.Offer(Executor::Lane::kChanges, [begun, done, opened = gate_->opened] {
        if (begun != nullptr) begun->count_down();
        opened.wait();
        done->set_value();
      });
  if (taken != Executor::Taken::kYes) return false;
  waiting_.push_back(done->get_future());
  return true;
}

void ErrorStage::LoseAnOperation(const std::string& name) {
  google::longrunning::Operation operation;
  operation.set_name(name);
  operation.mutable_metadata()->PackFrom(v1::JobMetadata());
  EXPECT_TRUE(kept_->Commit({Insert("operations", name, operation.SerializeAsString())}).ok());
  EXPECT_TRUE(domain_->operations().Recover().ok());
}

void ErrorStage::CancelPaused() {
  std::promise<void> done;
  domain_->operations().WhenDone(paused_, [&done] { done.set_value(); });
  EXPECT_TRUE(domain_->operations().Cancel(paused_).ok());
  done.get_future().wait();
}

}  // namespace gabion::service
