summary(); tools(); arrange(); classes(); training(); comparison(); about(); followHash();
window.addEventListener("hashchange", followHash);
window.report = { load, labelsOf, setThreshold, state, images, data };  // for tests of the page
