// config default, dump, validate, sources.
#include "groups.hpp"

namespace cellrund::cli {

Outcome config_default(Context& /*context*/) { return print(daemon::default_config_text()) ? 0 : kExitOurs; }

Outcome config_dump(Context& context) {
  const daemon::LoadedConfig loaded = CR_TRY(context.load_config());
  return print(daemon::dump_config(loaded.config)) ? 0 : kExitOurs;
}

Outcome config_validate(Context& context) {
  base::Result<daemon::LoadedConfig, Failed> loaded = context.load_config();
  if (!loaded) {
    Failed finding = std::move(loaded).error();
    if (finding.failure.code == base::Errc::kInvalidArgument) {
      finding.exit_code = 1;
    }
    return finding;
  }
  return print("ok: " + daemon::config_digest(loaded->config) + "\n") ? 0 : kExitOurs;
}

Outcome config_sources(Context& context) {
  const daemon::LoadedConfig loaded = CR_TRY(context.load_config());
  if (context.style().json()) {
    base::json::Array items;
    for (const daemon::ConfigSource& source : loaded.sources) {
      items.emplace_back(base::json::Object{{"key", source.key}, {"value", source.value}, {"source", source.source}});
    }
    return print(list_text(context.format(), "sources", std::move(items))) ? 0 : kExitOurs;
  }
  std::vector<std::vector<std::string>> rows;
  for (const daemon::ConfigSource& source : loaded.sources) {
    rows.push_back({source.key, source.value, printable(source.source)});
  }
  return print(table({"KEY", "VALUE", "SOURCE"}, rows)) ? 0 : kExitOurs;
}

}  // namespace cellrund::cli
