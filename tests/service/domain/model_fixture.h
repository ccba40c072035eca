// A client of the API beside a model of it: what it asks at random, and what must be true then.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/service/domain/crash_fixture.h"
#include "tests/service/domain/domain_model.h"
#include "tests/service/domain/watch_follower.h"
#include "tests/support/random_source.h"

namespace gabion::service {

// A call, and what it must come to.
struct PlannedCall {
  std::string method;
  std::string body;  // what is asked for, without its id
  std::function<absl::StatusOr<Told>(const std::string& request_id, bool validate_only)> send;
  std::string reason;  // of its error; empty: it succeeds
  DomainModel after;   // what there is then
  std::string about;   // the name of the resource
};

class ModelFixture : public CrashFixture {
 protected:
  using Mode = v1::DeleteExportRequest::Mode;

  ModelFixture() {
    adjust_ = [](DomainOptions* options) {
      options->operations.piece_bytes = 1000;
      options->operations.first_retry = std::chrono::milliseconds(2);
      options->exports.reconciler = {std::chrono::milliseconds(2), std::chrono::milliseconds(10)};
    };
  }

  PlannedCall Choose() {
    if (random_.OneIn(3)) return ChooseOfFilters();
    switch (random_.Below(11)) {
      case 0:
      case 1:
        return PlanCreateImage();
      case 2:
        return PlanUpdateImage();
      case 3:
        return PlanDeleteImage();
      case 4:
        return random_.OneIn(2) ? PlanBury() : PlanUndelete();
      case 5:
      case 6:
        return PlanCreateExport();
      case 7:
        return PlanUpdateExport();
      case 8:
        return PlanDeleteExport();
      case 9:
        return PlanClone();
      default:
        return PlanClose();
    }
  }
  PlannedCall ChooseOfFilters() {
    switch (random_.Below(6)) {
      case 0:
        return PlanCreateFilter();
      case 1:
        return PlanUpdateFilter();
      case 2:
        return PlanDeleteFilter();
      case 3:
        return PlanDetach();
      default:
        return PlanAttach();
    }
  }
  std::string NewRequestId() {
    return absl::StrFormat("00000000-0000-4000-8000-%012x", ++last_request_);
  }

  DomainModel model_;
  test::RandomSource random_;

 private:
  template <typename Request>
  PlannedCall Plan(const Request& request, std::string about) {
    PlannedCall call;
    call.method = Request::descriptor()->name();
    call.body = request.ShortDebugString();
    call.send = [this, request](const std::string& id, bool validate_only) -> absl::StatusOr<Told> {
      Request sent = request;
      sent.set_request_id(id);
      sent.set_validate_only(validate_only);
      ASSIGN_OR_RETURN(const auto response, Send(sent));
      return TellOf(response);
    };
    call.after = model_;
    call.about = std::move(about);
    return call;
  }

  std::string ImageId() { return std::string(1, static_cast<char>('a' + random_.Below(4))); }
  std::string ExportId() { return std::string(1, static_cast<char>('p' + random_.Below(4))); }
  std::string FilterId() { return std::string(1, static_cast<char>('w' + random_.Below(3))); }
  int32_t Delay() { return static_cast<int32_t>(random_.Between(1, 3)); }
  std::string Label() { return random_.OneIn(3) ? "" : absl::StrCat("v", random_.Below(2)); }
  uint64_t Size() { return 500 * random_.Between(1, 6); }

  // Sometimes the etag of what there is, sometimes another one; false: another one.
  template <typename Get>
  bool ChooseEtag(Get get, std::string* etag) {
    if (!random_.OneIn(3)) return true;
    const auto resource = get();
    if (!resource.ok()) return true;
    const bool right = random_.OneIn(2);
    *etag = right ? resource->etag() : "\"0123\"";
    return right;
  }
  bool ChooseImageEtag(const std::string& name, std::string* etag) {
    return ChooseEtag([&] { return domain_->images().Get(name); }, etag);
  }
  bool ChooseExportEtag(const std::string& name, std::string* etag) {
    return ChooseEtag([&] { return domain_->exports().Get(name); }, etag);
  }

  bool ChooseFilterEtag(const std::string& name, std::string* etag) {
    return ChooseEtag([&] { return domain_->filters().Get(name); }, etag);
  }

  PlannedCall PlanCreateFilter() {
    const int32_t delay = Delay();
    v1::CreateFilterRequest request;
    request.set_filter_id(FilterId());
    request.mutable_filter()->mutable_spec()->mutable_delay()->mutable_read()->set_nanos(delay);
    PlannedCall call = Plan(request, "filters/" + request.filter_id());
    call.reason = call.after.CreateFilter(call.about, delay);
    return call;
  }

  PlannedCall PlanUpdateFilter() {
    const int32_t delay = Delay();
    v1::UpdateFilterRequest request;
    v1::Filter& filter = *request.mutable_filter();
    filter.set_name("filters/" + FilterId());
    filter.mutable_spec()->mutable_delay()->mutable_read()->set_nanos(delay);
    const bool etag = ChooseFilterEtag(filter.name(), filter.mutable_etag());
    PlannedCall call = Plan(request, filter.name());
    call.reason = call.after.UpdateFilter(filter.name(), delay, etag);
    return call;
  }

  PlannedCall PlanDeleteFilter() {
    v1::DeleteFilterRequest request;
    request.set_name("filters/" + FilterId());
    request.set_allow_missing(random_.OneIn(2));
    const bool etag = ChooseFilterEtag(request.name(), request.mutable_etag());
    PlannedCall call = Plan(request, request.name());
    call.reason = call.after.DeleteFilter(request.name(), request.allow_missing(), etag);
    return call;
  }

  PlannedCall PlanAttach() {
    const std::string id = FilterId();
    v1::AttachFilterRequest request;
    request.set_name("exports/" + ExportId());
    request.mutable_entry()->set_entry_id(id);
    request.mutable_entry()->set_filter("filters/" + id);
    const bool etag = ChooseExportEtag(request.name(), request.mutable_etag());
    PlannedCall call = Plan(request, request.name());
    call.reason = call.after.AttachFilter(request.name(), "filters/" + id, etag);
    return call;
  }

  PlannedCall PlanDetach() {
    const std::string id = FilterId();
    v1::DetachFilterRequest request;
    request.set_name("exports/" + ExportId());
    request.set_entry_id(id);
    request.set_allow_missing(random_.OneIn(2));
    const bool etag = ChooseExportEtag(request.name(), request.mutable_etag());
    PlannedCall call = Plan(request, request.name());
    call.reason =
        call.after.DetachFilter(request.name(), "filters/" + id, request.allow_missing(), etag);
    return call;
  }

  PlannedCall PlanCreateImage() {
    const std::string id = ImageId();
    DomainModel::Image asked;
    asked.size = Size();
    asked.label = Label();
    v1::CreateImageRequest request = CreateImageRequest(id, asked.size);
    if (!asked.label.empty()) (*request.mutable_image()->mutable_labels())["k"] = asked.label;
    PlannedCall call = Plan(request, "images/" + id);
    call.reason = call.after.CreateImage(call.about, asked);
    return call;
  }

  PlannedCall PlanClone() {
    const std::string source = "images/" + ImageId();
    const std::string label = Label();
    v1::CloneImageRequest request = CloneImageRequest(ImageId(), source);
    if (!label.empty()) (*request.mutable_labels())["k"] = label;
    PlannedCall call = Plan(request, "images/" + request.image_id());
    call.reason = call.after.CloneImage(call.about, source, label);
    return call;
  }

  PlannedCall PlanUpdateImage() {
    const std::string name = "images/" + ImageId();
    const std::string label = Label();
    const uint64_t size = random_.OneIn(2) ? Size() : 0;
    v1::UpdateImageRequest request;
    request.mutable_image()->set_name(name);
    if (!label.empty()) (*request.mutable_image()->mutable_labels())["k"] = label;
    request.mutable_update_mask()->add_paths("labels");
    if (size != 0) {
      request.mutable_image()->set_virtual_size_bytes(size);
      request.mutable_update_mask()->add_paths("virtual_size_bytes");
    }
    const bool etag = ChooseImageEtag(name, request.mutable_image()->mutable_etag());
    PlannedCall call = Plan(request, name);
    call.reason = call.after.UpdateImage(name, label, size, etag);
    return call;
  }

  PlannedCall PlanDeleteImage() {
    v1::DeleteImageRequest request;
    request.set_name("images/" + ImageId());
    request.set_allow_missing(random_.OneIn(2));
    const bool etag = ChooseImageEtag(request.name(), request.mutable_etag());
    PlannedCall call = Plan(request, request.name());
    call.reason = call.after.DeleteImage(request.name(), request.allow_missing(), etag);
    return call;
  }

  PlannedCall PlanBury() {
    const bool retained = random_.OneIn(2);
    v1::DeleteImageRequest request;
    request.set_name("images/" + ImageId());
    request.set_mode(v1::DeleteImageRequest::MODE_TOMBSTONE);
    if (retained) request.mutable_retention()->set_seconds(24 * 3600);
    PlannedCall call = Plan(request, request.name());
    call.reason = call.after.BuryImage(request.name(), retained);
    return call;
  }

  PlannedCall PlanUndelete() {
    v1::UndeleteImageRequest request;
    request.set_name("images/" + ImageId());
    for (const auto& [name, image] : model_.images) {
      if (image.deleted) request.set_name(name);
    }
    PlannedCall call = Plan(request, request.name());
    call.reason = call.after.UndeleteImage(request.name());
    return call;
  }

  DomainModel::Export AnyExport() {
    DomainModel::Export exported;
    exported.source = "images/" + ImageId();
    exported.description = random_.OneIn(2) ? "" : "words";
    exported.read_only = random_.OneIn(2);
    exported.enabled = !random_.OneIn(4);
    if (random_.OneIn(4)) exported.stack.push_back("filters/" + FilterId());
    return exported;
  }
  static void Describe(const DomainModel::Export& from, v1::Export* to) {
    to->set_source(from.source);
    to->set_description(from.description);
    to->set_read_only(from.read_only);
    to->set_enabled(from.enabled);
    for (const std::string& name : from.stack) to->add_filter_stack()->set_filter(name);
  }

  PlannedCall PlanCreateExport() {
    const std::string id = ExportId();
    const DomainModel::Export asked = AnyExport();
    v1::CreateExportRequest request;
    request.set_export_id(id);
    Describe(asked, request.mutable_export_());
    PlannedCall call = Plan(request, "exports/" + id);
    call.reason = call.after.CreateExport(call.about, asked);
    return call;
  }

  PlannedCall PlanUpdateExport() {
    const std::string name = "exports/" + ExportId();
    const DomainModel::Export asked = AnyExport();
    v1::UpdateExportRequest request;
    Describe(asked, request.mutable_export_());
    request.mutable_export_()->set_name(name);
    for (const char* path : {"description", "read_only", "enabled"}) {
      request.mutable_update_mask()->add_paths(path);
    }
    request.set_allow_missing(random_.OneIn(2));
    const bool etag = ChooseExportEtag(name, request.mutable_export_()->mutable_etag());
    PlannedCall call = Plan(request, name);
    call.reason = call.after.UpdateExport(name, asked, request.allow_missing(), etag);
    return call;
  }

  PlannedCall PlanDeleteExport() {
    v1::DeleteExportRequest request;
    request.set_name("exports/" + ExportId());
    const Mode modes[] = {v1::DeleteExportRequest::MODE_SAFE, v1::DeleteExportRequest::MODE_HIDE,
                          v1::DeleteExportRequest::MODE_SOFT, v1::DeleteExportRequest::MODE_HARD};
    request.set_mode(random_.Pick(modes));
    if (request.mode() == v1::DeleteExportRequest::MODE_SOFT) {
      request.mutable_drain_timeout()->set_seconds(3600);
    }
    request.set_allow_missing(random_.OneIn(2));
    const bool etag = ChooseExportEtag(request.name(), request.mutable_etag());
    PlannedCall call = Plan(request, request.name());
    call.reason =
        call.after.DeleteExport(request.name(), request.mode(), request.allow_missing(), etag);
    return call;
  }

  PlannedCall PlanClose() {
    std::string name = "exports/" + ExportId();
    uint64_t id = 99;
    for (const auto& [candidate, exported] : model_.exports) {
      if (exported.clients.empty() || random_.OneIn(2)) continue;
      name = candidate;
      id = *exported.clients.begin();
    }
    v1::CloseConnectionRequest request;
    request.set_name(absl::StrCat(name, "/connections/", id));
    PlannedCall call = Plan(request, "");
    call.reason = call.after.CloseConnection(name, id);
    return call;
  }

  uint64_t last_request_ = 0;
};

}  // namespace gabion::service
