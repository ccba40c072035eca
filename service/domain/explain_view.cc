#include "service/domain/explain_view.h"

#include "absl/strings/str_cat.h"

namespace gabion::service {
namespace {

using engine::ExplainedLayer;
using engine::ExplainedStep;
using engine::ExplainedUnits;
using Effect = ExplainedStep::Effect;
using Told = v1::ExplainedExtent;

std::string DepthText(const block::Extent& extent) {
  return extent.kind == block::ExtentKind::kUnallocated ? std::string("no layer")
                                                        : absl::StrCat("layer ", extent.layer);
}

const char* KindText(block::ExtentKind kind) {
  switch (kind) {
    case block::ExtentKind::kData:
      return "data";
    case block::ExtentKind::kZeroAllocated:
      return "zeroes with storage";
    case block::ExtentKind::kZero:
    case block::ExtentKind::kUnallocated:
      break;
  }
  return "zeroes without storage";
}

std::string Subject(const Told::Step& step) {
  switch (step.what()) {
    case Told::WHAT_TAIL:
      return "The tail policy";
    case Told::WHAT_ALIGNMENT:
      return "The emulation of alignment";
    default:
      return absl::StrCat("The filter '", step.entry_id(), "' (", step.kind(), ")");
  }
}

std::string StepReason(const ExplainedStep& step, const Told::Step& told) {
  const std::string subject = Subject(told);
  switch (step.effect) {
    case Effect::kNone:
      return absl::StrCat(subject, " shows what is below as it is.");
    case Effect::kBypassed:
      return absl::StrCat(subject, " is bypassed.");
    case Effect::kShifted:
      return absl::StrCat(subject, " shows what is at offset ", step.below->value,
                          " of the disk below.");
    case Effect::kForced:
      return absl::StrCat(subject, " shows what is below as ", KindText(step.shown.kind), " of ",
                          DepthText(step.shown), ".");
    case Effect::kMadeUp:
      return absl::StrCat(subject, " reaches beyond the end of the disk below: zeroes.");
    case Effect::kKept:
      return absl::StrCat(subject, " keeps this apart from what is below, as ",
                          KindText(step.shown.kind), " of ", DepthText(step.shown), ".");
  }
  return "";
}

Told::Effect EffectOf(Effect effect) {
  switch (effect) {
    case Effect::kNone:
      return Told::EFFECT_NONE;
    case Effect::kBypassed:
      return Told::EFFECT_BYPASSED;
    case Effect::kShifted:
      return Told::EFFECT_SHIFTED;
    case Effect::kForced:
      return Told::EFFECT_FORCED;
    case Effect::kMadeUp:
      return Told::EFFECT_MADE_UP;
    case Effect::kKept:
      return Told::EFFECT_KEPT;
  }
  return Told::EFFECT_UNSPECIFIED;
}

Told::What WhatOf(ExplainedStep::What what) {
  switch (what) {
    case ExplainedStep::What::kFilter:
      return Told::WHAT_FILTER;
    case ExplainedStep::What::kAligner:
      return Told::WHAT_ALIGNMENT;
    case ExplainedStep::What::kTail:
      return Told::WHAT_TAIL;
  }
  return Told::WHAT_UNSPECIFIED;
}

void TellStep(const ExplainedStep& step, const EntryName& name, Told::Step* told) {
  told->set_what(WhatOf(step.what));
  told->set_entry_id(step.entry_id);
  told->set_filter(name.filter);
  told->set_kind(name.kind);
  told->set_effect(EffectOf(step.effect));
  if (step.below.has_value()) told->set_offset_below(step.below->value);
  if (step.effect != Effect::kBypassed) {
    const block::ExtentKind kind = step.shown.kind;
    told->set_data(!block::ReadsZero(kind));
    told->set_allocated(kind == block::ExtentKind::kData ||
                        kind == block::ExtentKind::kZeroAllocated);
    told->set_depth(kind == block::ExtentKind::kUnallocated ? 0 : step.shown.layer);
  }
  told->set_reason(StepReason(step, *told));
}

struct StateWords {
  Told::State state;
  const char* words;
};

StateWords StateOf(ExplainedLayer::State state) {
  switch (state) {
    case ExplainedLayer::State::kData:
      return {Told::STATE_DATA, "holds the bytes"};
    case ExplainedLayer::State::kZeroAllocated:
      return {Told::STATE_ZERO_ALLOCATED, "says that they are zero, and keeps storage for them"};
    case ExplainedLayer::State::kZero:
      return {Told::STATE_ZERO, "says that they are zero, or has a hole there"};
    case ExplainedLayer::State::kPasses:
      return {Told::STATE_PASSES, "has nothing there: the image below decides"};
    case ExplainedLayer::State::kPastEnd:
      return {Told::STATE_PAST_END,
              "ends before: the bytes are zero, and nothing further down is looked at"};
    case ExplainedLayer::State::kNothing:
      return {Told::STATE_NOTHING, "has nothing there, and no image below it: the bytes are zero"};
  }
  return {Told::STATE_UNSPECIFIED, ""};
}

void TellLayer(const ExplainedLayer& layer, Told::Layer* told) {
  const StateWords words = StateOf(layer.state);
  told->set_depth(layer.depth);
  told->set_image(layer.image);
  told->set_state(words.state);
  told->set_file(layer.file_name);
  if (layer.host_offset.has_value()) told->set_host_offset(*layer.host_offset);
  told->set_compressed(layer.compressed);
  std::string reason = absl::StrCat(layer.image, " ", words.words);
  if (layer.host_offset.has_value()) {
    absl::StrAppend(&reason, ", at offset ", *layer.host_offset, " of ", layer.file_name);
  }
  told->set_reason(absl::StrCat(reason, "."));
}

Told::Rule RuleOf(const ExplainedUnits& units, bool is_padding) {
  if (is_padding) return Told::RULE_PADDING;
  if (!units.merged) return Told::RULE_UNIFORM;
  if (!units.zero) return Told::RULE_DATA_ANYWHERE;
  return units.hole ? Told::RULE_ZERO_EVERYWHERE : Told::RULE_ZERO_PARTLY_ALLOCATED;
}

std::string RuleText(const ExplainedUnits& units, Told::Rule rule) {
  const std::string unit = absl::StrCat("The unit of ", units.units.length.value, " bytes at ",
                                        units.units.offset.value, " is told as a whole");
  switch (rule) {
    case Told::RULE_UNIFORM:
      if (units.granule == 1) return "It is told byte by byte.";
      return absl::StrCat("All of it is alike, in whole units of ", units.granule, " bytes.");
    case Told::RULE_DATA_ANYWHERE:
      return absl::StrCat(unit, ": some of it may be other than zero, so all of it is data.");
    case Told::RULE_ZERO_PARTLY_ALLOCATED:
      return absl::StrCat(unit, ": all of it is zero, and some of it has storage.");
    case Told::RULE_ZERO_EVERYWHERE:
      return absl::StrCat(unit, ": all of it is zero, and none of it has storage.");
    case Told::RULE_PADDING:
      return "It is padding behind the end of the disk.";
    default:
      return "";
  }
}

void TellUnits(const ExplainedUnits& units, bool is_padding, Told::Advertised* told) {
  told->set_granule_bytes(units.granule);
  told->set_offset(units.units.offset.value);
  told->set_length(units.units.length.value);
  told->set_hole(units.hole);
  told->set_zero(units.zero);
  told->set_depth(units.depth);
  told->set_maximum_depth(units.maximum_depth);
  told->set_rule(RuleOf(units, is_padding));
  std::string reason = RuleText(units, told->rule());
  if (units.has_padding && !is_padding) {
    absl::StrAppend(&reason, " The padding behind the end of the disk does not count.");
  }
  told->set_reason(std::move(reason));
}

// The last word: who decides about the bytes, and what became of that on the way up.
std::string Summary(const Told& told) {
  std::string summary = told.layers_size() > 0 ? told.layers(told.layers_size() - 1).reason()
                                               : told.steps(told.steps_size() - 1).reason();
  for (const Told::Step& step : told.steps()) {
    const bool is_last = told.layers_size() == 0 && &step == &*told.steps().rbegin();
    const bool matters = step.effect() == Told::EFFECT_FORCED ||
                         step.effect() == Told::EFFECT_SHIFTED ||
                         step.effect() == Told::EFFECT_KEPT;
    if (matters && !is_last) absl::StrAppend(&summary, " ", step.reason());
  }
  if (told.has_advertised() && told.advertised().rule() != Told::RULE_UNIFORM) {
    absl::StrAppend(&summary, " ", told.advertised().reason());
  }
  return summary;
}

}  // namespace

v1::ExplainedExtent TellExplanation(
    const engine::Explanation& explanation,
    const std::function<EntryName(const std::string& entry_id)>& name_of) {
  Told told;
  told.set_offset(explanation.range.offset.value);
  told.set_length(explanation.range.length.value);
  for (const ExplainedStep& step : explanation.steps) {
    const bool is_filter = step.what == ExplainedStep::What::kFilter;
    TellStep(step, is_filter ? name_of(step.entry_id) : EntryName(), told.add_steps());
  }
  for (const ExplainedLayer& layer : explanation.layers) TellLayer(layer, told.add_layers());
  if (explanation.told.has_value()) {
    const bool is_padding = explanation.layers.empty() &&
                            explanation.steps.back().what == ExplainedStep::What::kTail &&
                            explanation.told->units.offset == explanation.range.offset;
    TellUnits(*explanation.told, is_padding, told.mutable_advertised());
  }
  told.set_summary(Summary(told));
  return told;
}

}  // namespace gabion::service
