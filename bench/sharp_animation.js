// An animation by sharp: decode, fit to 320 x 180, encode. node sharp_animation.js FILE FORMAT OPTIONS
const sharp = require("sharp");

const [file, format, options] = process.argv.slice(2);

async function main() {
  const before = process.cpuUsage();
  const data = await sharp(file, { animated: true }).resize(320, 180)[format](JSON.parse(options)).toBuffer();
  const { user, system } = process.cpuUsage(before);
  console.log(JSON.stringify({ cpu: (user + system) / 1e6, size: data.length }));
}

main();
