// A served world in which every method of the method table has something to do, and the means to
// call each of them with requests that are made of descriptors.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "google/protobuf/message.h"
#include "google/rpc/error_details.pb.h"
#include "service/method.h"
#include "tests/service/api/method_table.h"
#include "tests/service/api/server_fixture.h"

namespace gabion::service {

// images/a with exports/e, which has two connections, and exports/f, to which filters/slow is
// attached; filters/free, which is attached to nothing; images/free, which nobody
// serves; images/gone, a tombstone; images/slow and images/slower, whose making is paused; a file
// disk.img; two pools.
class ContractFixture : public ServerFixture {
 protected:
  using Message = google::protobuf::Message;
  using FieldDescriptor = google::protobuf::FieldDescriptor;
  // What a call came to. Of a stream, the first message.
  struct Answer {
    absl::Status status;
    std::unique_ptr<Message> message;
  };

  ContractFixture();
  ~ContractFixture() override = default;

  // `text` as a request of `method`.
  std::unique_ptr<Message> Parse(const Method& method, const std::string& text) const;
  Answer Invoke(const Method& method, const Message& request);
  Answer InvokeBytes(const Method& method, const std::string& request);

  // Every row, the revision, and every file.
  std::map<std::string, std::string> Everything();
  // Waits until nothing is under way but what is paused, and what has happened is written.
  void Settle(const Answer& answer);

  static bool Violates(const absl::Status& status, const std::string& field,
                       const std::string& reason);
  static google::rpc::BadRequest ViolationsOf(const absl::Status& status);
  static void SetText(Message* message, const char* field, const std::string& text);
  static void SetFlag(Message* message, const FieldDescriptor* field);

  // Calls visit(message, field, path) for each field that a caller may set: of `request`, and of
  // our own messages in it, which are brought into being where they are missing if `into_missing`.
  using Visit = std::function<void(Message*, const FieldDescriptor*, const std::string&)>;
  static void ForEachSettable(Message* request, bool into_missing, const Visit& visit);

  std::string paused_;
  std::string other_;
  std::string done_;

 private:
  std::size_t StoredConnections();
  std::size_t EngineConnections();
};

// With the method table's entry as parameter.
class MethodTest : public ContractFixture, public testing::WithParamInterface<MethodCase> {
 protected:
  MethodTest()
      : method_(MethodNamed(GetParam().method)), kind_(service::KindOf(*method_.descriptor)) {}

  // The request of the table, with the fields of `more` changed.
  std::unique_ptr<Message> Valid(const std::string& more = "") const {
    std::unique_ptr<Message> request = Parse(method_, GetParam().request);
    request->MergeFrom(*Parse(method_, more));
    return request;
  }
  bool changes() const { return Changes(kind_); }
  // It takes a request_id, and can be tried.
  bool has_request_id() const { return method_.request_id != nullptr; }

  const Method& method_;
  const MethodKind kind_;
};

// The method's name without dots, for the names of tests.
std::string CaseName(const testing::TestParamInfo<MethodCase>& info);

}  // namespace gabion::service
