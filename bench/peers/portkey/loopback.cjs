// Portkey listens on every address of the machine; a benchmark is nobody else's business.
const { Server } = require("node:net");
const listen = Server.prototype.listen;
Server.prototype.listen = function (port, ...rest) {
  const where = typeof port === "object" ? { ...port, host: "127.0.0.1" } : { port, host: "127.0.0.1" };
  return listen.call(this, where, ...rest.filter((each) => typeof each === "function"));
};
