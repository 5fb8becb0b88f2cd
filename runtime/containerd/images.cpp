#include <algorithm>

#include "containerd/client.hpp"
#include "containerd/impl.hpp"

namespace cellrund::containerd {
namespace {

void fill(const Image& image, wire::images::Image& out) {
  out.set_name(image.name);
  out.mutable_labels()->insert(image.labels.begin(), image.labels.end());
  out.mutable_target()->set_media_type(image.target.media_type);
  out.mutable_target()->set_digest(image.target.digest);
  out.mutable_target()->set_size(static_cast<std::int64_t>(image.target.size));
}

Image from_wire(const wire::images::Image& image) {
  const auto& target = image.target();
  return Image{image.name(),
               Descriptor{target.media_type(), target.digest(),
                          static_cast<std::uint64_t>(std::max<std::int64_t>(target.size(), 0))},
               to_labels(image.labels()), to_wall_time(image.created_at())};
}

}  // namespace

base::Status Client::put_image(const Image& image, const Call& call) {
  wire::images::CreateImageRequest create;
  fill(image, *create.mutable_image());
  wire::images::CreateImageResponse created;
  auto result = impl_->unary(*impl_->images, &wire::images::Images::Stub::Create, create, created, call,
                             "Images.Create " + image.name);
  if (result.ok() || result.error().code() != base::Errc::kAlreadyExists) {
    return result;
  }
  wire::images::UpdateImageRequest update;
  fill(image, *update.mutable_image());
  update.mutable_update_mask()->add_paths("target");
  update.mutable_update_mask()->add_paths("labels");
  wire::images::UpdateImageResponse updated;
  return impl_->unary(*impl_->images, &wire::images::Images::Stub::Update, update, updated, call,
                      "Images.Update " + image.name);
}

base::Result<Image> Client::get_image(const std::string& name, const Call& call) {
  wire::images::GetImageRequest request;
  request.set_name(name);
  wire::images::GetImageResponse response;
  CR_CHECK(
      impl_->unary(*impl_->images, &wire::images::Images::Stub::Get, request, response, call, "Images.Get " + name));
  return from_wire(response.image());
}

base::Result<std::vector<Image>> Client::list_images(const Call& call) {
  wire::images::ListImagesResponse response;
  CR_CHECK(impl_->unary(*impl_->images, &wire::images::Images::Stub::List, wire::images::ListImagesRequest(), response,
                        call, "Images.List"));
  std::vector<Image> out;
  for (const auto& image : response.images()) {
    out.push_back(from_wire(image));
  }
  return out;
}

base::Status Client::delete_image(const std::string& name, const Call& call) {
  wire::images::DeleteImageRequest request;
  request.set_name(name);
  request.set_sync(true);
  google::protobuf::Empty response;
  return impl_->unary(*impl_->images, &wire::images::Images::Stub::Delete, request, response, call,
                      "Images.Delete " + name);
}

}  // namespace cellrund::containerd
