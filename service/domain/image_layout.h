// How the files of qcow2 images are laid out, as callers say it. Pure.
#pragma once

#include "absl/status/status.h"
#include "engine/engine.h"
#include "gabion/v1/image.pb.h"

namespace gabion::service {

// For the data plane; what is left out is the default.
engine::Qcow2Layout LayoutOf(const v1::Qcow2Format& format);
// For callers: all of it.
v1::Qcow2Format TellLayout(const engine::Qcow2Layout& layout);

// `image` with everything of its layout that may be left out.
v1::Image WithLayout(v1::Image image);

// FIELD_INVALID if the layout of an image is given, which comes with its file.
absl::Status CheckNoLayout(const v1::Image& image);

}  // namespace gabion::service
