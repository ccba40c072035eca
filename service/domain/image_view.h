// Images as the API tells them.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "gabion/v1/image.pb.h"
#include "service/domain/condition_log.h"
#include "service/domain/engine_errors.h"
#include "service/domain/export_index.h"

namespace gabion::service {

// Types of conditions.
inline constexpr std::string_view kReady = "Ready";
inline constexpr std::string_view kDeleted = "Deleted";

// What errors of the engine about `image` are about.
EngineCall About(const v1::Image& image);

// True if the image's file is there to be looked at.
bool HasFile(const v1::Image& row);

// `row` with what is observed: `info` is what the engine says of its file, or why it cannot.
v1::Image TellImage(v1::Image row, const absl::StatusOr<engine::ImageInfo>& info,
                    const ExportIndex& index, ConditionLog& conditions);

}  // namespace gabion::service
