// Every reason that the API gives, each with a call that is answered with it, and what must be the
// case before: shown to a client in C++ by error_goldens_test, and to others by error_stage.
#pragma once

#include <functional>
#include <future>
#include <latch>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "tests/service/api/server_fixture.h"

namespace gabion::service {

// Keeps work waiting until it is opened. Owned by the stage; any thread waits.
struct Gate {
  std::promise<void> open;
  std::shared_future<void> opened = open.get_future().share();
};

// A served domain in which images/a of 1000 bytes is exported as exports/e, and which can be
// brought into trouble. Owned by whoever plays the scenes, on one thread.
class ErrorStage final : public ServerFixture {
 public:
  ErrorStage();
  ~ErrorStage() override;

  // Waits until what a scene does beside its call has ended. Call behind each.
  void Settle();
  // `request` with the name of the paused operation for $PAUSED.
  std::string Fill(const std::string& request) const;
  std::string address() const { return dir_ / "gabiond.sock"; }
  grpc::Channel& channel() { return *channel_; }

  // What the scenes need to bring it into trouble.
  using DomainFixture::CreateExport;
  using DomainFixture::CreateFilter;
  using DomainFixture::CreateImage;
  using ServerFixture::CreatePausedImage;
  void Fail(const std::string& engine_method, const absl::Status& status);
  void Fail(const std::string& engine_method, absl::Status status, const ErrorReason& reason);
  void Remember(const std::string& request_id);
  void Lock(const std::string& file) { files_.SetLocked(file, true); }
  void RemoveFile(const std::string& name) { files_.Remove(name); }
  // Makes images/ID and deletes it for an hour.
  void Bury(const std::string& id);
  void PutFile(const std::string& name, const std::string& content);
  void Connect(const std::string& exported) { engine_->AddConnection(exported, {.id = 1}); }
  // A filter of that kind, filters/{id}, is the first entry of the export.
  void Attach(const std::string& id, const std::string& spec, const std::string& exported);
  // images/{prefix}1 is a qcow2 image, and each of the others, up to `count`, stands on the one
  // before.
  void MakeChain(const std::string& prefix, int count);
  void Corrupt(const std::string& file);
  // The row of images/a is written between the next call's reading and its commit.
  void ChangeUnderTheNextCall();
  // The change log is trimmed past a watch of images while that tells what is there.
  void OutrunTheNextWatch();
  void LoseAnOperation(const std::string& name);
  void CancelPaused();
  // As many changes wait for a thread as may, until Settle().
  void FillTheQueue();
  void Drain() { server_->Drain(); }

 private:
  void TestBody() override {}

  std::string paused_;
  std::thread beside_;
  bool OfferWait(const std::shared_ptr<std::latch>& begun);
  std::optional<Gate> gate_;  // of what FillTheQueue() has made wait
  std::vector<std::future<void>> waiting_;
};

struct ErrorScene {
  ErrorReason reason;
  std::string method;   // "package.Service/Method"
  std::string request;  // JSON, for ErrorStage::Fill()
  std::string summary;  // code, reason and metadata, then the details by type
  std::function<void(ErrorStage&)> prepare = [](ErrorStage&) {};
  bool in_operation = false;  // the answer is an operation that ended with the error
};

// In the order in which they can be played on one stage.
std::vector<ErrorScene> ErrorScenes();

}  // namespace gabion::service
