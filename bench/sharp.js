// The same work by sharp: decode once, fit to 1280 x 720, into files. node sharp.js PORT FOLDER OPTIONS-BY-FORMAT
const { randomBytes } = require("node:crypto");
const { createServer } = require("node:http");
const sharp = require("sharp");

const [port, folder, formats] = process.argv.slice(2);
const wanted = Object.entries(JSON.parse(formats));

async function exportAll(body) {
  const { data, info } = await sharp(body).removeAlpha().resize(1280, 720, { fit: "cover" }).raw()
    .toBuffer({ resolveWithObject: true });
  const stem = `${folder}/${randomBytes(16).toString("hex")}`;
  const exports = await Promise.all(wanted.map(async ([name, options]) => {
    const path = `${stem}.${name}`;
    const { size } = await sharp(data, { raw: info })[name](options).toFile(path);
    return [name, { size, file_path: path }];
  }));
  return { exports: Object.fromEntries(exports) };
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
