#include "tests/service/api/contract_fixture.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "engine/base/text.h"
#include "google/longrunning/operations.pb.h"
#include "google/protobuf/text_format.h"
#include "service/field_rules.h"
#include "service/message_rules.h"
#include "tests/service/api/wire.h"

namespace gabion::service {
namespace {

using google::longrunning::Operation;
using google::protobuf::Message;

std::unique_ptr<Message> NewMessage(const google::protobuf::Descriptor* type) {
  return std::unique_ptr<Message>(
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(type)->New());
}

void TwoPoolsAndSmallPieces(DomainOptions* options) {
  options->operations.piece_bytes = 4096;
  options->pools.push_back({"pools/other", "/other"});
}

}  // namespace

ContractFixture::ContractFixture() : ServerFixture(TwoPoolsAndSmallPieces) {
  EXPECT_TRUE(CreateImage("a", 1000).ok());
  EXPECT_TRUE(CreateImage("gone", 1000).ok());
  EXPECT_TRUE(CreateQcow2("base", 1000).ok());
  v1::CreateImageRequest create;
  create.set_image_id("free");
  create.mutable_image()->mutable_raw();
  create.mutable_image()->set_virtual_size_bytes(1000);
  const auto created = domain_->images().Create(create, service::Call());
  EXPECT_TRUE(created.ok() && created->done());
  if (created.ok()) done_ = created->name();
  for (const char* id : {"slow", "free"}) EXPECT_TRUE(CreateFilter(id, "delay {}").ok());
  EXPECT_TRUE(CreateExport("e", "images/a").ok());
  const auto filtered = [](v1::Export* f) { AddEntry(f, "filter: 'filters/slow'"); };
  EXPECT_TRUE(CreateExport("f", "images/a", filtered).ok());
  v1::DeleteImageRequest bury;
  bury.set_name("images/gone");
  bury.set_mode(v1::DeleteImageRequest::MODE_TOMBSTONE);
  bury.mutable_retention()->set_seconds(3600);
  EXPECT_TRUE(domain_->images().Delete(bury, service::Call()).ok());
  files_.Put("disk.img", {"", "content", false});
  paused_ = CreatePausedImage("slow");
  other_ = CreatePausedImage("slower");
  for (const uint64_t id : {1, 2}) engine_->AddConnection("exports/e", {.id = id});
  Settle({});
}

std::unique_ptr<Message> ContractFixture::Parse(const Method& method,
                                                const std::string& text) const {
  const std::string filled =
      absl::StrReplaceAll(text, {{"$PAUSED", paused_}, {"$OTHER", other_}, {"$DONE", done_}});
  std::unique_ptr<Message> request = NewMessage(method.descriptor->input_type());
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(filled, request.get()))
      << method.name << " " << filled;
  return request;
}

ContractFixture::Answer ContractFixture::InvokeBytes(const Method& method,
                                                     const std::string& request) {
  const std::string path =
      absl::StrCat(method.descriptor->service()->full_name(), "/", method.descriptor->name());
  const bool streams = method.descriptor->server_streaming();
  const WireAnswer wire = CallOnWire(*channel_, path, request, streams ? 1 : 2);
  Answer answer{FromGrpcStatus(wire.status), nullptr};
  if (!answer.status.ok()) return answer;
  answer.message = NewMessage(method.descriptor->output_type());
  EXPECT_EQ(wire.messages.size(), 1u) << path;
  EXPECT_TRUE(answer.message->ParseFromString(wire.messages.empty() ? "" : wire.messages[0]));
  return answer;
}

ContractFixture::Answer ContractFixture::Invoke(const Method& method, const Message& request) {
  return InvokeBytes(method, request.SerializeAsString());
}

std::map<std::string, std::string> ContractFixture::Everything() {
  std::map<std::string, std::string> all = files_.All();
  for (const char* collection : {"images", "filters", "exports", "connections", "operations",
                                 "jobs", "intents", "requests", "expiries"}) {
    const auto page = kept_->List(collection, "", 1000);
    EXPECT_TRUE(page.ok() && !page->more);
    if (!page.ok()) continue;
    for (const Row& row : page->rows) all[absl::StrCat(collection, " ", row.name)] = row.value;
  }
  const auto revision = kept_->Revision();
  EXPECT_TRUE(revision.ok());
  all["revision"] = absl::StrCat(revision.value_or(0));
  return all;
}

std::size_t ContractFixture::StoredConnections() {
  return kept_->List("connections", "", 1000)->rows.size();
}

std::size_t ContractFixture::EngineConnections() {
  v1::ListConnectionsRequest request;
  request.set_parent("exports/-");
  return static_cast<std::size_t>(domain_->connections().List(request)->connections_size());
}

void ContractFixture::Settle(const Answer& answer) {
  const bool ours =
      answer.message != nullptr && answer.message->GetDescriptor() == Operation::descriptor();
  if (ours) {
    Operation operation;
    operation.CopyFrom(*answer.message);
    v1::JobMetadata metadata;
    operation.metadata().UnpackTo(&metadata);
    if (!operation.done() && metadata.state() != v1::JobMetadata::STATE_PAUSED) {
      std::promise<void> done;
      domain_->operations().WhenDone(operation.name(), [&done] { done.set_value(); });
      done.get_future().wait();
    }
  }
  // The observer writes a little later; ctest ends the test otherwise.
  while (StoredConnections() != EngineConnections()) std::this_thread::yield();
}

google::rpc::BadRequest ContractFixture::ViolationsOf(const absl::Status& status) {
  google::rpc::BadRequest bad;
  const auto payload = status.GetPayload("type.googleapis.com/google.rpc.BadRequest");
  if (payload.has_value()) bad.ParseFromString(std::string(*payload));
  return bad;
}

bool ContractFixture::Violates(const absl::Status& status, const std::string& field,
                               const std::string& reason) {
  const google::rpc::BadRequest bad = ViolationsOf(status);
  return std::any_of(
      bad.field_violations().begin(), bad.field_violations().end(),
      [&](const auto& one) { return one.field() == field && one.reason() == reason; });
}

void ContractFixture::SetText(Message* message, const char* field, const std::string& text) {
  message->GetReflection()->SetString(message, message->GetDescriptor()->FindFieldByName(field),
                                      text);
}

void ContractFixture::SetFlag(Message* message, const FieldDescriptor* field) {
  message->GetReflection()->SetBool(message, field, true);
}

void ContractFixture::ForEachSettable(Message* request, bool into_missing, const Visit& visit) {
  const std::function<void(Message*, const std::string&)> walk = [&](Message* message,
                                                                     const std::string& at) {
    const google::protobuf::Descriptor& type = *message->GetDescriptor();
    for (int i = 0; i < type.field_count(); ++i) {
      const FieldDescriptor* field = type.field(i);
      if (HasBehavior(*field, google::api::OUTPUT_ONLY)) continue;
      const std::string path = JoinPath(at, field->name());
      visit(message, field, path);
      if (!IsOurs(*field) || field->is_repeated()) continue;
      if (!into_missing && !IsSet(*message, *field)) continue;
      const bool missing = !IsSet(*message, *field);
      walk(message->GetReflection()->MutableMessage(message, field), path);
      if (missing) message->GetReflection()->ClearField(message, field);
    }
  };
  walk(request, "");
}

std::string CaseName(const testing::TestParamInfo<MethodCase>& info) {
  return info.param.method.substr(info.param.method.rfind('.') + 1);
}

}  // namespace gabion::service
