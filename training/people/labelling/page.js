// Shows the photo that is asked about and a loupe into it, and tells which photo an answer is for.
window.labelling = (() => {
  let asked = ''
  const keys = { 1: 'label-none', 2: 'label-desirable', 3: 'label-undesirable', 0: 'label-skipped', z: 'undo' }

  const current = () => document.querySelector('.asked')

  function ready(yes) {
    document.body.dataset.ready = yes && document.getElementById('undo') ? '1' : '0'
    // the buttons may come a frame after the photo; a key before them would be lost
    if (yes && document.body.dataset.ready === '0') {
      const about = asked
      requestAnimationFrame(() => about === asked && ready(true))
    }
  }

  function look() {
    // gradio writes the next photo into the same elements, so they do not tell it from the last one
    const found = current()
    const about = found ? `${found.dataset.annotator} ${found.dataset.number}` : ''
    // and may write them anew, without what was put into them here
    const filled = !found || found.dataset.number === '0' || found.querySelector('.photo').src
    if (about === asked && filled) return
    asked = about
    ready(false)
    if (!found) return
    const address = new URLSearchParams(location.search)
    address.set('annotator', found.dataset.annotator)
    history.replaceState(null, '', '?' + address)
    const number = found.dataset.number
    if (number === '0') return ready(true)
    const [photo, loupe] = ['.photo', '.loupe'].map((name) => found.querySelector(name))
    photo.onclick = (event) => {
      const box = photo.getBoundingClientRect()
      const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]
      loupe.src = `loupe/${number}/${x.toFixed(4)}/${y.toFixed(4)}`
    }
    photo.onload = () => about === asked && ready(true)
    photo.onerror = () => { photo.alt = 'This file cannot be read as a picture: skip it.'; ready(true) }
    photo.src = `photo/${number}`
    loupe.src = `loupe/${number}/0.5/0.5`
  }

  document.addEventListener('keydown', (event) => {
    const button = keys[event.key.toLowerCase()]
    if (!button || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return
    if (event.target.closest?.('input, textarea') || document.body.dataset.ready !== '1') return
    document.getElementById(button)?.click()
  })
  new MutationObserver(look).observe(document, {
    childList: true, subtree: true, attributeFilter: ['data-number', 'data-annotator'],
  })

  return {
    annotator: () => new URLSearchParams(location.search).get('annotator') ?? '',
    // What the annotator sees, to go with the answer; once, until the next photo is there.
    told: () => {
      const found = current()
      if (!found || document.body.dataset.ready !== '1') return ''
      ready(false)
      asked = ''
      setTimeout(look, 5000) // where no answer came: the same photo can be labelled again
      return JSON.stringify({ annotator: found.dataset.annotator, number: Number(found.dataset.number) })
    },
  }
})()
