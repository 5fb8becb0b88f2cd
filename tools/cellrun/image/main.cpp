// cellrun-image: image import, ls and rm. A program of its own, run by `cellrun image …` in its place: it needs
// containerd's client, whose libraries would more than double the start time of every other command.
//
//   cellrun-image --containerd SOCKET --namespace NS --images DIR --output table|json|jsonl [--name REPO] --
//                 import FILE | ls | rm NAME
#include <exception>

#include "../arguments.hpp"
#include "../output.hpp"
#include "containerd/client.hpp"
#include "image/containerd_store.hpp"
#include "image/layout_import.hpp"
#include "image/store.hpp"
#include "model/quantity.hpp"

namespace cellrund::cli {
namespace {

using base::Errc;
using base::Error;

constexpr base::Nanoseconds kImportBudget = std::chrono::minutes(30);  // the file's size bounds it; a full disk is slow
constexpr base::Nanoseconds kListBudget = std::chrono::seconds(60);

struct Failed {
  Error error;
  std::string hint;
  int exit_code = 125;
};
using Outcome = base::Result<int, Failed>;

Format format_of(const Arguments& arguments) {
  const std::string text = arguments.value("output").value_or("table");
  return text == "json" ? Format::kJson : text == "jsonl" ? Format::kJsonLines : Format::kTable;
}

Failed failed(Error error, std::string hint = {}) {
  if (error.code() == Errc::kUnavailable) {
    return {std::move(error), "containerd runs while cellrund does: cellrun doctor", 69};
  }
  return {std::move(error), std::move(hint), 125};
}

Outcome import(const Arguments& arguments, image::ContentStore& content) {
  const image::ImportOptions options{arguments.positional[1], arguments.value("name").value_or("")};
  auto imported = image::import_layout(options, content, base::Deadline::after(kImportBudget));
  if (!imported) {
    return failed(std::move(imported).error().context("image import"), "an OCI image layout as tar: skopeo copy SOURCE oci-archive:FILE:NAME makes one");
  }
  if (format_of(arguments) == Format::kTable) {
    std::string out;
    for (const image::ImportedImage& image : *imported) {
      out += printable(image.reference) + "\n";
    }
    return print(out) ? 0 : 125;
  }
  base::json::Array items;
  for (const image::ImportedImage& image : *imported) {
    items.emplace_back(base::json::Object{{"name", image.reference}, {"layers", image.layers}, {"bytes", image.bytes}});
  }
  return print(list_text(format_of(arguments), "images", std::move(items))) ? 0 : 125;
}

Outcome list(const Arguments& arguments, const image::Store& store) {
  auto images = store.list(base::Deadline::after(kListBudget));
  if (!images) {
    return failed(std::move(images).error().context("image ls"));
  }
  if (format_of(arguments) != Format::kTable) {
    base::json::Array items;
    for (const image::ImageView& image : *images) {
      items.emplace_back(base::json::Object{{"name", image.name}, {"digest", image.digest}, {"createdAt", image.created_at},
                                            {"prepared", image.prepared}, {"rootfsBytes", image.rootfs_bytes},
                                            {"rootfsDigest", image.rootfs_digest}});
    }
    return print(list_text(format_of(arguments), "images", std::move(items))) ? 0 : 125;
  }
  std::vector<std::vector<std::string>> rows;
  for (const image::ImageView& image : *images) {
    rows.push_back({printable(image.name), printable(image.created_at),
                    image.prepared ? model::format_bytes(image.rootfs_bytes) : "not prepared"});
  }
  return print(table({"NAME", "CREATED", "ROOTFS"}, rows)) ? 0 : 125;
}

Outcome remove(const Arguments& arguments, const image::Store& store) {
  base::Status removed = store.remove(arguments.positional[1], base::Deadline::after(kListBudget));
  if (!removed) {
    return failed(std::move(removed).error().context("image rm"), "cellrun image ls lists the names");
  }
  return print(printable(arguments.positional[1]) + "\n") ? 0 : 125;
}

Outcome run(const Arguments& arguments) {
  base::Result<containerd::Client> client = containerd::Client::create(
      arguments.value("containerd").value_or(""), arguments.value("namespace").value_or(""));
  if (!client) {
    return failed(std::move(client).error());
  }
  image::ContainerdStore content(*client);
  const image::Store store(arguments.value("images").value_or(""), content);
  const std::string& what = arguments.positional[0];
  if (what == "import") {
    return import(arguments, content);
  }
  return what == "ls" ? list(arguments, store) : remove(arguments, store);
}

int start(const std::vector<std::string>& words) {
  const std::vector<Flag> flags = {{"containerd", 0, "SOCKET", ""}, {"namespace", 0, "NS", ""}, {"images", 0, "DIR", ""},
                                   {"output", 0, "FORMAT", ""},     {"name", 0, "REPO", ""}};
  const auto arguments = parse_arguments(words, flags);
  const std::size_t count = arguments.ok() ? arguments->positional.size() : 0;
  const std::string what = count > 0 ? arguments->positional[0] : "";
  if ((what != "ls" || count != 1) && ((what != "import" && what != "rm") || count != 2)) {
    remark("cellrun-image: this is a part of cellrun (InvalidArgument)\nhint: cellrun image --help\n");
    return 64;
  }
  const Outcome outcome = run(*arguments);
  if (outcome) {
    return *outcome;
  }
  Style style;
  style.format = format_of(*arguments);
  api::Failure failure = api::failure_from(outcome.error().error);
  failure.hint = outcome.error().hint;
  remark(error_text(style, failure));
  return outcome.error().exit_code;
}

}  // namespace
}  // namespace cellrund::cli

int main(int argc, char** argv) {
  try {
    return cellrund::cli::start({argv + (argc > 0 ? 1 : 0), argv + argc});
  } catch (const std::exception& error) {  // out of memory, or a bug: nothing else throws
    cellrund::cli::remark(std::string("cellrun: ") + error.what() + " (Unknown)\n");
    return 125;
  }
}
