summary(); tools(); arrange(); classes(); training(); comparison(); about(); followHash();
for (const link of document.querySelectorAll("nav a")) link.hidden = at(link.hash.slice(1)).hidden;
window.addEventListener("hashchange", followHash);
window.report = { load, labelsOf, setThreshold, state, images, data };  // for tests of the page
