// Loads both sides of a question before either is shown, plays them in step, and tells when a vote may be given.
window.study = (() => {
  let pair = null
  let asked = ''
  let shownAt = 0
  const urls = []

  const query = () => new URLSearchParams(location.search)

  function ready(yes) {
    document.body.dataset.ready = yes && document.getElementById('vote-left') ? '1' : '0'
    // the buttons may come a frame after the pair; a key before them would be lost
    if (yes && document.body.dataset.ready === '0') {
      const about = asked
      requestAnimationFrame(() => about === asked && ready(true))
    } else if (yes) shownAt = performance.now()
  }

  async function blob(address) {
    const answer = await fetch(address)
    if (!answer.ok) throw new Error(`${address}: ${answer.status}`)
    return URL.createObjectURL(await answer.blob())
  }

  function loaded(side, url) {
    if (side.tagName === 'IMG') {
      const first = new Image()
      first.src = url
      return first.decode()
    }
    return new Promise((done, failed) => {
      side.oncanplaythrough = done
      side.onerror = () => failed(side.error)
      side.src = url
    })
  }

  function play(sides) {
    sides.forEach((video) => { video.currentTime = 0 })
    return Promise.all(sides.map((video) => video.play()))
  }

  function inStep([left, right]) {
    const again = () => left.ended && right.ended && left.isConnected && play([left, right])
    left.onended = right.onended = again
    left.ontimeupdate = () => {
      const apart = Math.abs(left.currentTime - right.currentTime)
      if (!left.ended && !right.ended && apart > 0.08) right.currentTime = left.currentTime
    }
  }

  async function start(found, about) {
    const sides = [...found.querySelectorAll('[data-address]')]
    const fetched = await Promise.all(sides.map((side) => blob(side.dataset.address)))
    if (about !== asked) return fetched.forEach((url) => URL.revokeObjectURL(url))
    urls.push(...fetched)
    await Promise.all(sides.map((side, i) => loaded(side, fetched[i])))
    if (about !== asked) return
    if (sides[0].tagName === 'IMG') {
      // set in one go, so that animations begin together
      sides.forEach((side, i) => { side.src = fetched[i] })
      await Promise.all(sides.map((side) => side.decode()))
    } else {
      inStep(sides)
      await play(sides)
    }
    if (about !== asked) return
    found.classList.add('shown')
    ready(true)
  }

  function look() {
    // gradio writes the next question into the same elements, so they do not tell it from the last one
    const found = document.querySelector('.pair')
    const about = found ? `${found.dataset.participant} ${found.dataset.number}` : ''
    if (about === asked) return
    asked = about
    pair = found
    urls.splice(0).forEach((url) => URL.revokeObjectURL(url))
    ready(false)
    if (!found) return
    found.classList.remove('shown', 'failed')
    const address = query()
    address.set('participant', found.dataset.participant)
    history.replaceState(null, '', '?' + address)
    start(found, about).catch((error) => {
      console.error(error)
      if (about === asked) found.classList.add('failed')
    })
  }

  document.addEventListener('keydown', (event) => {
    const side = { 1: 'left', 2: 'right' }[event.key]
    const typing = event.target.closest?.('input, textarea')
    if (!side || event.repeat || event.ctrlKey || event.altKey || event.metaKey || typing) return
    if (document.body.dataset.ready === '1') document.querySelector(`#vote-${side}`)?.click()
  })
  new MutationObserver(look).observe(document, {
    childList: true, subtree: true, attributeFilter: ['data-number', 'data-participant'],
  })

  return {
    participant: () => query().get('participant') ?? '',
    // The question on the page, to go with the vote; once, until the next question is there.
    answer: () => {
      if (!pair || document.body.dataset.ready !== '1') return ''
      ready(false)
      const { participant, number } = pair.dataset
      const seconds = (performance.now() - shownAt) / 1000
      return JSON.stringify({ participant, number: Number(number), seconds })
    },
  }
})()
