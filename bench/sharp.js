// The same work by sharp: decode once, fit to 1280 x 720, three formats into files. node sharp.js PORT FOLDER PNG-OPTIONS
const { randomBytes } = require("node:crypto");
const { createServer } = require("node:http");
const sharp = require("sharp");

const [port, folder, png] = process.argv.slice(2);
const pngOptions = JSON.parse(png);

async function exportAll(body) {
  const { data, info } = await sharp(body).removeAlpha().resize(1280, 720, { fit: "cover" }).raw()
    .toBuffer({ resolveWithObject: true });
  const picture = () => sharp(data, { raw: info });
  const stem = `${folder}/${randomBytes(16).toString("hex")}`;
  const [made, jpeg, webp] = await Promise.all([
    picture().png(pngOptions).toFile(`${stem}.png`),
    picture().jpeg({ quality: 85 }).toFile(`${stem}.jpg`),
    picture().webp({ quality: 80 }).toFile(`${stem}.webp`),
  ]);
  return { exports: { png: { size: made.size }, jpeg: { size: jpeg.size }, webp: { size: webp.size } } };
}

createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  try {
    const answer = JSON.stringify(await exportAll(Buffer.concat(chunks)));
    response.writeHead(200, { "Content-Type": "application/json" }).end(answer);
  } catch (error) {
    response.writeHead(500).end(String(error));
  }
}).listen(Number(port), "127.0.0.1");
