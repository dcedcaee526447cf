"use strict";

{
  const images = [...document.querySelectorAll("#pictures img")];
  const place = document.getElementById("viewer");
  const side = (name) => Number(images[0].getAttribute(name));
  if (images.length > 1) {
    place.hidden = false;
    const pictures = images.map((image) => ({ label: image.alt, src: image.src }));
    new Viewer(place, pictures, { width: side("width"), height: side("height") });
  }
}
